// SPDX-License-Identifier: Apache-2.0
//! The listing half of a container runtime: a CRI server that lists what a test
//! says is there.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use actor_volumes::{
    proto::cri::{runtime_service_server::RuntimeServiceServer, *},
    transport,
};
use tonic::{Request, Response, Status, transport::Server};

type Answer<T> = Result<Response<T>, Status>;

/// What the runtime has.
#[derive(Default)]
pub struct Lists {
    /// Sandbox id → whether it is ready.
    pub sandboxes: BTreeMap<String, bool>,
    /// Container id → (sandbox id, state).
    pub containers: BTreeMap<String, (String, ContainerState)>,
    /// Whether every call fails.
    pub down: bool,
}

/// A served list; ends when it is dropped.
pub struct ListedRuntime {
    lists: Arc<Mutex<Lists>>,
    task: tokio::task::JoinHandle<()>,
}

impl ListedRuntime {
    /// Serves on the socket.
    pub async fn start(socket: &Path) -> Self {
        let lists = Arc::new(Mutex::new(Lists::default()));
        let incoming = transport::bind(socket).await.expect("bind the CRI socket");
        let service = RuntimeServiceServer::new(Service(Arc::clone(&lists)));
        let task = tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .expect("serve CRI");
        });
        Self { lists, task }
    }

    /// Changes what is listed.
    pub fn set(&self, change: impl FnOnce(&mut Lists)) {
        change(&mut self.lists.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for ListedRuntime {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service(Arc<Mutex<Lists>>);

impl Service {
    fn read<T>(&self, get: impl FnOnce(&Lists) -> T) -> Answer<T> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.down {
            return Err(Status::unavailable("the runtime is down"));
        }
        Ok(Response::new(get(&lists)))
    }
}

fn not_served<T>() -> Answer<T> {
    Err(Status::unimplemented("this double only lists"))
}

#[tonic::async_trait]
impl runtime_service_server::RuntimeService for Service {
    async fn list_pod_sandbox(
        &self,
        _: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        self.read(|lists| ListPodSandboxResponse {
            items: lists
                .sandboxes
                .iter()
                .map(|(id, ready)| PodSandbox {
                    id: id.clone(),
                    state: i32::from(!ready),
                    ..PodSandbox::default()
                })
                .collect(),
        })
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        self.read(|lists| ListContainersResponse {
            containers: lists
                .containers
                .iter()
                .map(|(id, (sandbox, state))| Container {
                    id: id.clone(),
                    pod_sandbox_id: sandbox.clone(),
                    state: (*state).into(),
                    ..Container::default()
                })
                .collect(),
        })
    }

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        not_served()
    }
    async fn run_pod_sandbox(
        &self,
        _: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        not_served()
    }
    async fn stop_pod_sandbox(
        &self,
        _: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        not_served()
    }
    async fn remove_pod_sandbox(
        &self,
        _: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        not_served()
    }
    async fn pod_sandbox_status(
        &self,
        _: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        not_served()
    }
    async fn create_container(
        &self,
        _: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        not_served()
    }
    async fn start_container(
        &self,
        _: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        not_served()
    }
    async fn stop_container(
        &self,
        _: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        not_served()
    }
    async fn remove_container(
        &self,
        _: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        not_served()
    }
    async fn container_status(
        &self,
        _: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        not_served()
    }
    async fn exec_sync(&self, _: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        not_served()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        not_served()
    }
}
