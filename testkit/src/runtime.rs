// SPDX-License-Identifier: Apache-2.0
//! The listing half of a container runtime: a CRI server that lists what a test
//! says is there, tells how containers were made, and stops sandboxes.

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
    /// Sandbox id → the pod's namespace, name and annotations.
    pub pods: BTreeMap<String, (String, String, BTreeMap<String, String>)>,
    /// Container id → its name, and the OCI specification that it was made by.
    pub specs: BTreeMap<String, (String, serde_json::Value)>,
    /// How often each container was asked for its specification.
    pub asked: BTreeMap<String, u32>,
    /// What Status tells of each handler: whether it knows user namespaces and mapped
    /// mounts.
    pub handlers: BTreeMap<String, bool>,
    /// Sandboxes that were stopped.
    pub stopped: Vec<String>,
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
    pub fn set<T>(&self, change: impl FnOnce(&mut Lists) -> T) -> T {
        change(&mut self.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ListedRuntime {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service(Arc<Mutex<Lists>>);

impl Service {
    fn read<T>(&self, get: impl FnOnce(&mut Lists) -> T) -> Answer<T> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.down {
            return Err(Status::unavailable("the runtime is down"));
        }
        Ok(Response::new(get(&mut lists)))
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
                .map(|(id, ready)| {
                    let (namespace, name, annotations) =
                        lists.pods.get(id).cloned().unwrap_or_default();
                    PodSandbox {
                        id: id.clone(),
                        metadata: Some(PodSandboxMetadata {
                            namespace,
                            name,
                            ..PodSandboxMetadata::default()
                        }),
                        annotations: annotations.into_iter().collect(),
                        state: i32::from(!ready),
                        ..PodSandbox::default()
                    }
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
                    metadata: lists.specs.get(id).map(|(name, _)| ContainerMetadata {
                        name: name.clone(),
                        ..ContainerMetadata::default()
                    }),
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
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let sandbox = request.into_inner().pod_sandbox_id;
        self.read(|lists| {
            lists.containers.retain(|_, (of, _)| *of != sandbox);
            if let Some(ready) = lists.sandboxes.get_mut(&sandbox) {
                *ready = false;
            }
            lists.stopped.push(sandbox);
            StopPodSandboxResponse {}
        })
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
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let id = request.container_id;
        let answer = self.read(|lists| {
            *lists.asked.entry(id.clone()).or_default() += 1;
            let (_, spec) = lists.specs.get(&id)?;
            let info = serde_json::json!({"sandboxID": "", "runtimeSpec": spec});
            let info = [("info".to_owned(), info.to_string())];
            Some(ContainerStatusResponse {
                info: info.into_iter().filter(|_| request.verbose).collect(),
                ..ContainerStatusResponse::default()
            })
        })?;
        let missing = || Status::not_found(format!("no container {id}"));
        answer.into_inner().map(Response::new).ok_or_else(missing)
    }
    async fn exec_sync(&self, _: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        not_served()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.read(|lists| StatusResponse {
            runtime_handlers: lists
                .handlers
                .iter()
                .map(|(name, user_namespaces)| RuntimeHandler {
                    name: name.clone(),
                    features: Some(RuntimeHandlerFeatures {
                        user_namespaces: *user_namespaces,
                        ..RuntimeHandlerFeatures::default()
                    }),
                })
                .collect(),
            ..StatusResponse::default()
        })
    }
}
