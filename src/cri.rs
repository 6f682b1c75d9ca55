// SPDX-License-Identifier: Apache-2.0
//! A container runtime through the CRI: what it has, and the end of a sandbox.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{Error, Kind, Result},
    model::RuntimeId,
    oci::{self, ContainerSpec},
    proto::cri::{
        ContainerState, ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest,
        PodSandboxState, StatusRequest, StopPodSandboxRequest,
        runtime_service_client::RuntimeServiceClient,
    },
    transport,
};

/// A node with many pods lists more than gRPC's usual 4 MiB.
const MAX_LIST: usize = 64 << 20;

/// What the runtime lists: sandboxes and containers by id.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every sandbox that is not removed; whether it is ready.
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// Every container that is not removed.
    pub containers: BTreeMap<String, Container>,
}

/// A sandbox of a listing. Annotations have no Debug: they may hold contexts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether it is SANDBOX_READY.
    pub ready: bool,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A container of a listing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// Its name in the pod.
    pub name: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
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
    /// None: this node has no CRI.
    socket: Option<PathBuf>,
    deadline: Duration,
}

impl Cri {
    /// Does not connect yet.
    pub fn new(socket: Option<PathBuf>, deadline: Duration) -> Self {
        Self { socket, deadline }
    }

    /// The socket; none: this node has no CRI.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    fn name(&self) -> String {
        let socket = self.socket.as_deref().unwrap_or(Path::new("none"));
        socket.display().to_string()
    }

    /// How records name this runtime.
    pub fn runtime_id(&self) -> Result<RuntimeId> {
        RuntimeId::new(format!("cri:{}", self.name()))
    }

    /// Lists sandboxes and containers. Without a CRI there are none.
    pub async fn list(&self) -> Result<Listing> {
        if self.socket.is_none() {
            return Ok(Listing::default());
        }
        self.within("list its sandboxes", self.list_now()).await
    }

    /// The OCI specification that the container was made by. None: it is gone, or the
    /// runtime does not tell.
    pub async fn spec(&self, container: &str) -> Result<Option<ContainerSpec>> {
        let ask = async {
            let request = ContainerStatusRequest {
                container_id: container.to_owned(),
                verbose: true,
            };
            let answer = self.client().await?.container_status(request).await;
            match answer {
                Ok(answer) => Ok(answer.into_inner().info.remove("info")),
                Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
                Err(status) => Err(self.failed("ContainerStatus", &status)),
            }
        };
        match self.within("tell of a container", ask).await? {
            Some(info) => oci::of_status(&info),
            None => Ok(None),
        }
    }

    /// Whether this handler of the runtime knows user namespaces and mounts whose owners
    /// are mapped. None: the runtime does not tell.
    pub async fn maps_ids(&self, handler: &str) -> Result<Option<bool>> {
        let ask = async {
            let request = StatusRequest { verbose: false };
            let answer = self.client().await?.status(request).await;
            let handlers = answer
                .map_err(|s| self.failed("Status", &s))?
                .into_inner()
                .runtime_handlers;
            let found = handlers.into_iter().find(|h| h.name == handler);
            Ok(found.and_then(|h| h.features).map(|f| f.user_namespaces))
        };
        self.within("tell of its handlers", ask).await
    }

    /// Ends the sandbox with all its containers.
    pub async fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        let stop = async {
            let request = StopPodSandboxRequest {
                pod_sandbox_id: sandbox.to_owned(),
            };
            let stopped = self.client().await?.stop_pod_sandbox(request).await;
            stopped
                .map(drop)
                .map_err(|s| self.failed("StopPodSandbox", &s))
        };
        self.within("stop a sandbox", stop).await
    }

    async fn within<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| {
            Error::deadline(format!(
                "the runtime at {} did not {what} within {:?}",
                self.name(),
                self.deadline
            ))
        };
        tokio::time::timeout(self.deadline, call)
            .await
            .map_err(late)?
    }

    async fn client(&self) -> Result<RuntimeServiceClient<tonic::transport::Channel>> {
        let socket = self.socket.as_ref().ok_or_else(|| {
            Error::precondition(
                "this node has no CRI: runtime.cri_socket of its configuration is empty",
            )
        })?;
        let channel = transport::connect(socket, self.deadline).await?;
        Ok(RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_LIST))
    }

    async fn list_now(&self) -> Result<Listing> {
        let mut client = self.client().await?;
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
                    let of = s.metadata.unwrap_or_default();
                    let sandbox = Sandbox {
                        ready,
                        name: of.name,
                        namespace: of.namespace,
                        annotations: s.annotations.into_iter().collect(),
                    };
                    (s.id, sandbox)
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
                        name: c.metadata.unwrap_or_default().name,
                        annotations: c.annotations.into_iter().collect(),
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
                self.name(),
                status.message()
            ),
        )
    }
}
