// SPDX-License-Identifier: Apache-2.0
//! The plugin while what is behind it is not ready.
//!
//! A runtime that starts a plugin waits for its registration, and older ones do not
//! start at all without it. So it registers first, whatever comes of the rest, and
//! refuses containers that ask for volumes until it can give them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::time::Instant;

use super::VolumePlugin;
use crate::{
    error::{Error, Result},
    node,
    nri::{EventMask, Plugin, RuntimeInfo},
    proto::nri::{Container, ContainerAdjustment, PodSandbox},
};

/// Stands before the plugin.
#[derive(Default)]
pub struct Front {
    behind: OnceLock<VolumePlugin>,
    told: Mutex<Told>,
}

/// What was told while nothing was behind it.
#[derive(Default)]
struct Told {
    runtime: Option<RuntimeInfo>,
    synchronized: bool,
    /// What it waits for, for people.
    waits_for: String,
}

impl Front {
    /// It is not ready, for this reason.
    pub fn waits_for(&self, what: String) {
        self.told().waits_for = what;
    }

    /// From now on everything is for this one. What events told before is not lost:
    /// it looks at the runtime by itself.
    pub fn ready(&self, plugin: VolumePlugin) {
        let mut told = self.told();
        let plugin = self.behind.get_or_init(|| plugin);
        if let Some(runtime) = told.runtime.take() {
            plugin.configured(runtime);
        }
        if std::mem::take(&mut told.synchronized) {
            plugin.synchronized(Vec::new(), Vec::new());
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, pod: &PodSandbox, container: &Container) -> Result<ContainerAdjustment> {
        let asks = |annotations: &HashMap<String, String>| {
            annotations.keys().any(|key| node::is_ours(key))
        };
        if !asks(&pod.annotations) && !asks(&container.annotations) {
            return Ok(ContainerAdjustment::default());
        }
        let told = self.told();
        let why = match told.waits_for.as_str() {
            "" => "it is starting: retry",
            why => why,
        };
        Err(Error::unavailable(format!(
            "actor-volumes: container {:?}: the plugin is not ready: {why}",
            container.name
        )))
    }
}

impl Plugin for Front {
    fn events(&self) -> EventMask {
        super::events()
    }

    fn configured(&self, runtime: RuntimeInfo) {
        let mut told = self.told();
        match self.behind.get() {
            Some(plugin) => plugin.configured(runtime),
            None => told.runtime = Some(runtime),
        }
    }

    fn synchronized(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        let mut told = self.told();
        match self.behind.get() {
            Some(plugin) => plugin.synchronized(pods, containers),
            None => told.synchronized = true,
        }
    }

    fn run_pod_sandbox(&self, pod: PodSandbox) {
        if let Some(plugin) = self.behind.get() {
            plugin.run_pod_sandbox(pod);
        }
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
        deadline: Instant,
    ) -> Result<ContainerAdjustment> {
        match self.behind.get() {
            Some(plugin) => plugin.create_container(pod, container, deadline).await,
            None => self.refuse(&pod, &container),
        }
    }

    // Not subscribed to.
    fn post_create_container(&self, _: PodSandbox, _: Container) {}
    fn start_container(&self, _: PodSandbox, _: Container) {}
    fn post_start_container(&self, _: PodSandbox, _: Container) {}

    fn stop_container(&self, pod: PodSandbox, container: Container) {
        if let Some(plugin) = self.behind.get() {
            plugin.stop_container(pod, container);
        }
    }

    fn remove_container(&self, pod: PodSandbox, container: Container) {
        if let Some(plugin) = self.behind.get() {
            plugin.remove_container(pod, container);
        }
    }

    fn stop_pod_sandbox(&self, pod: PodSandbox) {
        if let Some(plugin) = self.behind.get() {
            plugin.stop_pod_sandbox(pod);
        }
    }

    fn remove_pod_sandbox(&self, pod: PodSandbox) {
        if let Some(plugin) = self.behind.get() {
            plugin.remove_pod_sandbox(pod);
        }
    }

    fn disconnected(&self, why: &Error) {
        if let Some(plugin) = self.behind.get() {
            plugin.disconnected(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn until_it_is_ready_only_containers_that_ask_for_volumes_are_refused() {
        let front = Front::default();
        let pod = |annotation: &str| PodSandbox {
            annotations: [(annotation.to_owned(), "x".to_owned())].into(),
            ..Default::default()
        };
        let create = async |pod: PodSandbox| {
            let until = Instant::now() + Duration::from_secs(1);
            let created = front.create_container(pod, Container::default(), until);
            created.await.map(|adjustment| adjustment.mounts.len())
        };
        let foreign = create(pod("example.com/actor-volumes.dev")).await;
        assert_eq!(foreign.unwrap(), 0);
        let refused = create(pod("actor-volumes.dev/grant")).await.unwrap_err();
        assert!(refused.to_string().contains("it is starting"), "{refused}");
        front.waits_for("the configuration is broken".into());
        let refused = create(pod("actor-volumes.dev/grant")).await.unwrap_err();
        assert!(refused.to_string().contains("is broken"), "{refused}");
    }
}
