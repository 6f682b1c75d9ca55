// SPDX-License-Identifier: Apache-2.0
//! NRI events translated into scope events of the node agent, and what a
//! container needs into adjustments. Nothing is decided here.

mod front;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use front::Front;
use tokio::time::Instant;

use crate::{
    delivery::{self, DeviceNeed, MountNeed},
    error::{Error, Result},
    model::{ContainerView, SandboxView, ViewMount},
    node::Agent,
    nri::{self, EventMask, Plugin, RuntimeInfo},
    proto::nri::{
        Container, ContainerAdjustment, LinuxDevice, Mount, OptionalFileMode, PodSandbox,
    },
    telemetry::Metrics,
};

/// The share of the runtime's request timeout that an answer may take, in
/// percent: a plugin that is late is dropped, and the container starts without
/// its volume.
const SHARE_OF_TIMEOUT: u32 = 75;

/// The plugin.
pub struct VolumePlugin {
    agent: Arc<Agent>,
    metrics: Arc<Metrics>,
    timeout: std::sync::Mutex<Duration>,
}

impl VolumePlugin {
    /// Hands what it hears to this node agent.
    pub fn new(agent: Arc<Agent>, metrics: Arc<Metrics>) -> Self {
        Self {
            agent,
            metrics,
            timeout: std::sync::Mutex::new(Duration::from_secs(2)),
        }
    }

    fn timeout(&self) -> Duration {
        *self
            .timeout
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Plugin for VolumePlugin {
    fn events(&self) -> EventMask {
        events()
    }

    fn configured(&self, runtime: RuntimeInfo) {
        tracing::info!(
            runtime = runtime.name,
            version = runtime.version,
            request_timeout = ?runtime.request_timeout,
            "registered as an NRI plugin"
        );
        *self
            .timeout
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = runtime.request_timeout;
        self.agent
            .runtime_connected(runtime.name, runtime.version, runtime.request_timeout);
    }

    fn synchronized(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        tracing::info!(
            pods = pods.len(),
            containers = containers.len(),
            "synchronized with the runtime"
        );
        self.metrics.nri(true);
        self.agent.synchronized();
    }

    fn run_pod_sandbox(&self, pod: PodSandbox) {
        self.agent.runtime_event();
        self.agent.sandbox_started(sandbox_view(pod));
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
        deadline: Instant,
    ) -> Result<ContainerAdjustment> {
        self.agent.runtime_event();
        let share = self.timeout() * SHARE_OF_TIMEOUT / 100;
        let until = deadline.min(Instant::now() + share);
        let sandbox = sandbox_view(pod);
        let container = container_view(container);
        let needs = self
            .agent
            .container_created(&sandbox, &container, until.into_std())
            .await?;
        let mounts = needs.mounts.iter().map(mount).collect::<Result<_>>()?;
        let devices = needs.devices.iter().map(device).collect();
        Ok(nri::adjust(mounts, devices))
    }

    // Not subscribed to: the mounts are the runtime's from here on.
    fn post_create_container(&self, _: PodSandbox, _: Container) {}
    fn start_container(&self, _: PodSandbox, _: Container) {}
    fn post_start_container(&self, _: PodSandbox, _: Container) {}

    fn stop_container(&self, pod: PodSandbox, container: Container) {
        self.agent.runtime_event();
        self.agent.container_gone(&pod.id, &container.id);
    }

    fn remove_container(&self, pod: PodSandbox, container: Container) {
        self.agent.runtime_event();
        self.agent.container_gone(&pod.id, &container.id);
    }

    fn stop_pod_sandbox(&self, pod: PodSandbox) {
        self.agent.runtime_event();
        self.agent.sandbox_over(&pod.id, "its sandbox was stopped");
    }

    fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.agent.runtime_event();
        self.agent.sandbox_over(&pod.id, "its sandbox was removed");
    }

    fn disconnected(&self, why: &Error) {
        tracing::warn!("the NRI connection is down: {}", why.full_message());
        self.metrics.nri(false);
        self.metrics.nri_lost();
        self.agent.runtime_lost(why.full_message());
    }
}

fn events() -> EventMask {
    EventMask::RUN_POD_SANDBOX
        | EventMask::STOP_POD_SANDBOX
        | EventMask::REMOVE_POD_SANDBOX
        | EventMask::CREATE_CONTAINER
        | EventMask::STOP_CONTAINER
        | EventMask::REMOVE_CONTAINER
}

pub(crate) fn sandbox_view(pod: PodSandbox) -> SandboxView {
    SandboxView {
        id: pod.id,
        name: pod.name,
        namespace: pod.namespace,
        uid: pod.uid,
        annotations: sorted(pod.annotations),
        handler: pod.runtime_handler,
    }
}

pub(crate) fn container_view(container: Container) -> ContainerView {
    let namespaces = container.linux.map(|l| l.namespaces).unwrap_or_default();
    let user = namespaces.into_iter().find(|n| n.r#type == "user");
    ContainerView {
        user_namespace: user.map(|n| n.path),
        id: container.id,
        sandbox: container.pod_sandbox_id,
        name: container.name,
        annotations: sorted(container.annotations),
        mounts: container
            .mounts
            .into_iter()
            .map(|m| ViewMount {
                destination: m.destination,
                source: m.source,
            })
            .collect(),
    }
}

fn sorted(annotations: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    annotations.into_iter().collect()
}

fn mount(need: &MountNeed) -> Result<Mount> {
    let source = need.source.to_str().ok_or_else(|| {
        Error::internal(format!(
            "the target path {} is not UTF-8: choose another node.mount_root",
            need.source.display()
        ))
    })?;
    Ok(Mount {
        destination: need.destination.clone(),
        r#type: "bind".into(),
        source: source.into(),
        options: delivery::options(need),
    })
}

/// The runtime makes the node, and lets the container's control group use it.
fn device(need: &DeviceNeed) -> LinuxDevice {
    LinuxDevice {
        path: need.path.clone(),
        r#type: "b".into(),
        major: need.major.into(),
        minor: need.minor.into(),
        file_mode: Some(OptionalFileMode {
            value: if need.read_only { 0o440 } else { 0o660 },
        }),
        ..Default::default()
    }
}
