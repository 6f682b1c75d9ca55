// SPDX-License-Identifier: Apache-2.0
//! actorvolumes.v1.Agent, on the daemon's unix socket.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use super::{Agent, Breach, Holding, Stuck, strays};
use crate::{
    csi::Driver,
    delivery::{self, Spec},
    model::{ContainerView, SandboxView},
    proto::api::{
        self, AgentDriver, AgentStatus, CheckContainerRequest, CheckContainerResponse,
        GetAgentStatusRequest, NriStatus, agent_server,
    },
    rpc::status_of,
};

/// Who does not answer within this has a problem.
const DRIVER_WITHIN: Duration = Duration::from_secs(3);

/// Answers for the node agent.
pub struct AgentService {
    agent: Arc<Agent>,
}

impl AgentService {
    /// Answers for this one.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }
}

#[tonic::async_trait]
impl agent_server::Agent for AgentService {
    async fn check_container(
        &self,
        request: Request<CheckContainerRequest>,
    ) -> Result<Response<CheckContainerResponse>, Status> {
        let asked = request.into_inner();
        let sandbox = SandboxView {
            id: asked.sandbox_id,
            name: asked.pod_name,
            namespace: asked.pod_namespace,
            uid: String::new(),
            annotations: asked.annotations.into_iter().collect(),
            ..SandboxView::default()
        };
        let mut container = ContainerView {
            id: asked.container_id,
            sandbox: sandbox.id.clone(),
            name: asked.container_name,
            ..ContainerView::default()
        };
        let spec = Spec {
            mounts: asked.mounts.into_iter().map(spec_mount).collect(),
            devices: asked.devices.into_iter().map(spec_device).collect(),
        };
        let checked = if sandbox.id.is_empty() {
            container.annotations = sandbox.annotations;
            let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
            let (root, bundle) = (path(asked.runtime_root), path(asked.bundle));
            let place = (root.as_deref(), bundle.as_deref());
            self.agent
                .check_container_on_host(&container, place, &spec)
                .await
        } else {
            self.agent
                .check_container(&sandbox, &container, &spec)
                .await
        };
        checked.map_err(|e| status_of(&e))?;
        Ok(Response::new(CheckContainerResponse {}))
    }

    async fn give_container(
        &self,
        request: Request<api::GiveContainerRequest>,
    ) -> Result<Response<api::GiveContainerResponse>, Status> {
        let given = self.agent.give_container(request.into_inner()).await;
        given.map(Response::new).map_err(|e| status_of(&e))
    }

    async fn release_container(
        &self,
        request: Request<api::ReleaseContainerRequest>,
    ) -> Result<Response<api::ReleaseContainerResponse>, Status> {
        let released = self.agent.release_container(request.into_inner()).await;
        released.map(Response::new).map_err(|e| status_of(&e))
    }

    async fn set_draining(
        &self,
        request: Request<api::SetDrainingRequest>,
    ) -> Result<Response<api::DrainStatus>, Status> {
        let draining = request.into_inner().draining;
        let set = self.agent.set_draining(draining).await;
        set.map_err(|e| status_of(&e))?;
        let blockers = self.agent.blockers().await.into_iter();
        Ok(Response::new(api::DrainStatus {
            node: self.agent.settings.name.to_string(),
            draining,
            blockers: blockers.map(blocker).collect(),
        }))
    }

    async fn get_agent_status(
        &self,
        _: Request<GetAgentStatusRequest>,
    ) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(self.status().await))
    }
}

impl AgentService {
    async fn status(&self) -> AgentStatus {
        let agent = &self.agent;
        let door = agent.door();
        let mut held_volumes = 0;
        for volume in agent.volumes() {
            held_volumes += u64::from(volume.held().await.is_some());
        }
        let asked = agent.shared.drivers.list().into_iter();
        let asked: Vec<_> = asked
            .map(|d| tokio::spawn(ask(Arc::clone(agent), d)))
            .collect();
        let mut drivers = Vec::new();
        for answer in asked {
            drivers.extend(answer.await);
        }
        // Without a CRI the first container shows that its processes are in sight.
        let nothing_yet = agent.shared.cri.socket().is_none() && held_volumes == 0;
        let sight = match nothing_yet {
            true => Ok(()),
            false => agent.shared.proof.sight().await,
        };
        AgentStatus {
            node: agent.settings.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            nri: Some(NriStatus {
                connected: door.connected,
                synchronized: door.synchronized,
                runtime: door.runtime,
                runtime_version: door.version,
                request_timeout_ms: u64::try_from(door.request_timeout.as_millis())
                    .unwrap_or(u64::MAX),
                events: door.events,
                lost: door.lost,
            }),
            drivers,
            held_volumes,
            unreadable: agent.unreadable().into_iter().collect(),
            strays: strays::find(agent).await,
            draining: agent.is_draining(),
            uncertain: uncertain(agent),
            breaches: agent.breaches().into_iter().map(breach).collect(),
            stuck: agent.stuck().await.into_iter().map(stuck).collect(),
            no_sight: sight.err().map_or(String::new(), |e| e.full_message()),
        }
    }
}

/// Whether the driver answers, and its mounts would be seen.
async fn ask(agent: Arc<Agent>, driver: Arc<Driver>) -> AgentDriver {
    let problem = match tokio::time::timeout(DRIVER_WITHIN, driver.status()).await {
        Ok(status) if status.ready => {
            let seen = agent.shared.driver_in_sight(driver.name()).await;
            seen.err().map_or(String::new(), |e| e.full_message())
        }
        Ok(status) if status.message.is_empty() => "it says that it is not ready".to_owned(),
        Ok(status) => status.message,
        Err(_) => format!("it does not answer within {DRIVER_WITHIN:?}"),
    };
    AgentDriver {
        name: driver.name().to_string(),
        problem,
    }
}

fn uncertain(agent: &Agent) -> Vec<String> {
    let uncertain = agent.uncertain();
    let text = |(scope, why): (&_, &_)| format!("{scope}: {why}");
    uncertain.iter().map(text).collect()
}

fn blocker(holding: Holding) -> api::Blocker {
    api::Blocker {
        driver: holding.key.driver.to_string(),
        volume_id: holding.key.volume_id,
        held_by: holding.held_by.unwrap_or_default(),
    }
}

fn breach(found: Breach) -> api::Breach {
    api::Breach {
        container_id: found.container,
        container_name: found.name,
        sandbox_id: found.sandbox,
        pod: found.pod,
        message: found.why,
        since: found.since.to_string(),
    }
}

fn stuck(found: Stuck) -> api::StuckVolume {
    api::StuckVolume {
        driver: found.key.driver.to_string(),
        volume_id: found.key.volume_id,
        message: found.what,
        since: found.since.to_string(),
    }
}

fn spec_mount(mount: crate::proto::api::SpecMount) -> delivery::SpecMount {
    delivery::SpecMount {
        destination: mount.destination,
        source: mount.source.into(),
        kind: mount.r#type,
        options: mount.options,
    }
}

fn spec_device(device: crate::proto::api::SpecDevice) -> delivery::SpecDevice {
    delivery::SpecDevice {
        path: device.path,
        kind: device.r#type,
        major: device.major,
        minor: device.minor,
    }
}
