// SPDX-License-Identifier: Apache-2.0
//! Read-only view of a container runtime through the CRI.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    error::{Error, Kind, Result},
    model::RuntimeId,
    proto::cri::{
        ContainerState, ListContainersRequest, ListPodSandboxRequest, PodSandboxState,
        runtime_service_client::RuntimeServiceClient,
    },
    transport,
};

/// A node with many pods lists more than gRPC's usual 4 MiB.
const MAX_LIST: usize = 64 << 20;

/// What the runtime lists: sandboxes and containers by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every sandbox that is not removed; whether it is ready.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// Every container that is not removed.
    pub containers: BTreeMap<String, Container>,
}

/// A sandbox of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether it is SANDBOX_READY.
    pub ready: bool,
}

/// A container of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// Whether it is CONTAINER_RUNNING, or in a state that is not known. One that
    /// was created and not started has no process.
    pub running: bool,
    /// Whether it is CONTAINER_CREATED.
    pub created: bool,
}

impl Listing {
    /// Whether a container of this sandbox runs.
    pub fn runs_in(&self, sandbox: &str) -> bool {
        self.containers
            .values()
            .any(|c| c.sandbox == sandbox && c.running)
    }
}

/// A runtime's CRI socket. Each listing connects anew, so that a runtime that
/// was restarted needs no care.
#[derive(Debug, Clone)]
pub struct Cri {
    socket: PathBuf,
    deadline: Duration,
}

impl Cri {
    /// Does not connect yet.
    pub fn new(socket: PathBuf, deadline: Duration) -> Self {
        Self { socket, deadline }
    }

    /// The socket.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// How records name this runtime.
    pub fn runtime_id(&self) -> Result<RuntimeId> {
        RuntimeId::new(format!("cri:{}", self.socket.display()))
    }

    /// Lists sandboxes and containers.
    pub async fn list(&self) -> Result<Listing> {
        tokio::time::timeout(self.deadline, self.list_now())
            .await
            .map_err(|_| {
                Error::deadline(format!(
                    "the runtime at {} did not list its sandboxes within {:?}",
                    self.socket.display(),
                    self.deadline
                ))
            })?
    }

    async fn list_now(&self) -> Result<Listing> {
        let channel = transport::connect(&self.socket, self.deadline).await?;
        let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_LIST);
        // Containers first: a sandbox that appears between the two calls is then
        // listed without them, never containers without their sandbox.
        let containers = client
            .list_containers(ListContainersRequest::default())
            .await
            .map_err(|s| self.failed("ListContainers", &s))?
            .into_inner()
            .containers;
        let sandboxes = client
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .map_err(|s| self.failed("ListPodSandbox", &s))?
            .into_inner()
            .items;
        Ok(Listing {
            sandboxes: sandboxes
                .into_iter()
                .map(|s| {
                    let ready = s.state == PodSandboxState::SandboxReady as i32;
                    (s.id, Sandbox { ready })
                })
                .collect(),
            containers: containers
                .into_iter()
                .map(|c| {
                    let created = c.state == ContainerState::ContainerCreated as i32;
                    let exited = c.state == ContainerState::ContainerExited as i32;
                    let running = !created && !exited;
                    let sandbox = c.pod_sandbox_id;
                    let container = Container {
                        sandbox,
                        running,
                        created,
                    };
                    (c.id, container)
                })
                .collect(),
        })
    }

    fn failed(&self, rpc: &str, status: &tonic::Status) -> Error {
        Error::new(
            Kind::from_code(status.code() as i32),
            format!(
                "{rpc} of the runtime at {} failed: {}",
                self.socket.display(),
                status.message()
            ),
        )
    }
}
