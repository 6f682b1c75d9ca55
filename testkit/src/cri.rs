// SPDX-License-Identifier: Apache-2.0
//! A small kubelet's hand: drives a real container runtime through the CRI.
//!
//! The client blocks, so that a test reads as the sequence of steps that it is.
//! It may be cloned and used from several threads at once.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actor_volumes::{
    proto::cri::{self, runtime_service_client::RuntimeServiceClient as Client},
    transport::{self, Channel},
};
use tokio::runtime::{Builder, Runtime};
use tonic::Status;

/// The image that `e2e/tools/images.sh` makes for containers.
pub const BUSYBOX: &str = "localhost/actor-volumes/busybox:1";

/// No call of these tests takes this long unless something is stuck.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Room for the verbose status of a container with many mounts.
const MAX_MESSAGE: usize = 16 << 20;

/// What the runtime answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code, as its number.
    pub code: i32,
    /// The message, as a kubelet would show it in the pod's events.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self {
            code: status.code() as i32,
            message: status.message().to_owned(),
        }
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Annotations, sorted by key.
pub type Annotations = BTreeMap<String, String>;

/// A pod to run.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its annotations.
    pub annotations: Annotations,
    /// `hostUsers: false`: the host's id that is its root; none: it has the host's users.
    pub users_from: Option<u32>,
}

impl PodSpec {
    /// A pod without annotations.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            annotations: Annotations::new(),
            users_from: None,
        }
    }

    /// The same pod with users of its own, which are these of the host and the 65535
    /// that follow, as a kubelet does with `hostUsers: false`.
    #[must_use]
    pub fn with_users_from(mut self, first: u32) -> Self {
        self.users_from = Some(first);
        self
    }

    /// The same pod with these annotations.
    #[must_use]
    pub fn annotated(mut self, annotations: &Annotations) -> Self {
        self.annotations = annotations.clone();
        self
    }
}

/// A sandbox that runs, and the configuration that every container of it repeats.
#[derive(Clone)]
pub struct Pod {
    /// The sandbox id.
    pub id: String,
    config: cri::PodSandboxConfig,
}

/// A bind mount that the pod itself asks for, as a kubelet's volumes are.
#[derive(Debug, Clone)]
pub struct HostMount {
    /// Where it comes from.
    pub source: PathBuf,
    /// Where it goes.
    pub destination: String,
}

/// A container to create.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its name in the pod.
    pub name: String,
    /// What it runs.
    pub command: Vec<String>,
    /// Its own mounts.
    pub mounts: Vec<HostMount>,
    /// Its own annotations.
    pub annotations: Annotations,
    /// How many containers of this name the pod had before.
    pub attempt: u32,
    /// Whom it runs as: user and group, and supplementary groups; none: root.
    pub user: Option<(i64, Vec<i64>)>,
}

impl ContainerSpec {
    /// A container that waits for ever.
    pub fn idle(name: &str) -> Self {
        Self::new(name, &["/bin/busybox", "sleep", "2147483647"])
    }

    /// A container that runs this command.
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            mounts: Vec::new(),
            annotations: Annotations::new(),
            attempt: 0,
            user: None,
        }
    }

    /// The same container, not as root but with this number as user and group,
    /// and this supplementary group, as a kubelet does with a pod's `fsGroup`.
    #[must_use]
    pub fn as_user(mut self, id: i64, group: i64) -> Self {
        self.user = Some((id, vec![group]));
        self
    }

    /// The same container, as one that comes after others of its name.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same container with these annotations.
    #[must_use]
    pub fn annotated(mut self, annotations: &Annotations) -> Self {
        self.annotations = annotations.clone();
        self
    }
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit code.
    pub code: i32,
}

/// A client of one runtime.
#[derive(Clone)]
pub struct Cri {
    runtime: Arc<Runtime>,
    channel: Channel,
    log_dir: PathBuf,
    cgroup_parent: String,
    env: Vec<cri::KeyValue>,
}

impl Cri {
    /// Connects to the runtime; logs of containers go below `log_dir`.
    pub fn connect(socket: &Path, log_dir: &Path) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| internal(format!("cannot start the client's threads: {e}")))?;
        let channel = runtime
            .block_on(transport::connect(socket, Duration::from_secs(2)))
            .map_err(|e| Refusal {
                code: e.kind().code(),
                message: e.full_message(),
            })?;
        Ok(Self {
            runtime: Arc::new(runtime),
            channel,
            log_dir: log_dir.to_owned(),
            cgroup_parent: "/actor-volumes-e2e".to_owned(),
            env: Vec::new(),
        })
    }

    /// The same client, whose pods live below another cgroup.
    #[must_use]
    pub fn with_cgroup_parent(mut self, parent: &str) -> Self {
        self.cgroup_parent = parent.to_owned();
        self
    }

    /// The same client, whose containers all have this variable.
    #[must_use]
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.push(cri::KeyValue {
            key: key.to_owned(),
            value: value.as_bytes().to_vec(),
        });
        self
    }

    /// The runtime's version.
    pub fn version(&self) -> Result<String> {
        let request = cri::VersionRequest::default();
        let mut client = self.client();
        Ok(self.wait(client.version(request))?.runtime_version)
    }

    /// Whether the runtime says that it is ready for pods.
    pub fn is_ready(&self) -> bool {
        let mut client = self.client();
        let status = self.wait(client.status(cri::StatusRequest { verbose: false }));
        let conditions = status
            .ok()
            .and_then(|s| s.status)
            .map(|s| s.conditions)
            .unwrap_or_default();
        conditions
            .iter()
            .any(|c| c.r#type == "RuntimeReady" && c.status)
    }

    /// Runs a sandbox.
    pub fn run_pod(&self, spec: &PodSpec) -> Result<Pod> {
        let config = self.sandbox_config(spec);
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let mut client = self.client();
        let id = self.wait(client.run_pod_sandbox(request))?.pod_sandbox_id;
        Ok(Pod { id, config })
    }

    /// A pod that runs already, as a client of another process knows it.
    pub fn pod(&self, id: &str) -> Result<Pod> {
        let (status, _) = self.pod_status(id)?;
        let metadata = status.metadata.unwrap_or_default();
        let spec = PodSpec {
            name: metadata.name,
            namespace: metadata.namespace,
            annotations: status.annotations.into_iter().collect(),
            users_from: None,
        };
        Ok(Pod {
            id: status.id,
            config: self.sandbox_config(&spec),
        })
    }

    /// Stops a sandbox and all its containers.
    pub fn stop_pod(&self, id: &str) -> Result<()> {
        let pod_sandbox_id = id.to_owned();
        let mut client = self.client();
        self.wait(client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id }))?;
        Ok(())
    }

    /// Removes a sandbox and all its containers.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        let pod_sandbox_id = id.to_owned();
        let mut client = self.client();
        self.wait(client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }))?;
        Ok(())
    }

    /// Whether the sandbox is ready, and what the runtime tells of it besides.
    pub fn pod_status(&self, id: &str) -> Result<(cri::PodSandboxStatus, serde_json::Value)> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let mut client = self.client();
        let answer = self.wait(client.pod_sandbox_status(request))?;
        let status = answer
            .status
            .ok_or_else(|| internal(format!("no status of sandbox {id} in the answer")))?;
        Ok((status, info(&answer.info)?))
    }

    /// The ids of all sandboxes.
    pub fn pods(&self) -> Result<Vec<String>> {
        let request = cri::ListPodSandboxRequest { filter: None };
        let mut client = self.client();
        let items = self.wait(client.list_pod_sandbox(request))?.items;
        Ok(items.into_iter().map(|p| p.id).collect())
    }

    /// The containers of a sandbox: the newest of each name, with its id, and whether
    /// it runs.
    pub fn containers(&self, sandbox: &str) -> Result<BTreeMap<String, (String, bool)>> {
        let running = cri::ContainerState::ContainerRunning as i32;
        let one = |c: cri::Container| {
            let name = c.metadata.unwrap_or_default().name;
            (name, (c.id, c.state == running))
        };
        Ok(self.containers_of(sandbox)?.into_iter().map(one).collect())
    }

    /// Stops the sandbox and removes its containers and it, in a kubelet's order.
    pub fn remove_all(&self, sandbox: &str) -> Result<()> {
        self.stop_pod(sandbox)?;
        for container in self.containers_of(sandbox)? {
            self.remove_container(&container.id)?;
        }
        self.remove_pod(sandbox)
    }

    /// The containers of a sandbox, oldest first.
    fn containers_of(&self, sandbox: &str) -> Result<Vec<cri::Container>> {
        let request = cri::ListContainersRequest {
            filter: Some(cri::ContainerFilter {
                pod_sandbox_id: sandbox.to_owned(),
                ..Default::default()
            }),
        };
        let mut client = self.client();
        let mut items = self.wait(client.list_containers(request))?.containers;
        items.sort_by_key(|c| c.created_at);
        Ok(items)
    }

    /// Creates a container; it does not run yet.
    pub fn create_container(&self, pod: &Pod, spec: &ContainerSpec) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(cri::ContainerConfig {
                envs: self.env.clone(),
                ..container_config(spec, users_of(pod))
            }),
            sandbox_config: Some(pod.config.clone()),
        };
        let mut client = self.client();
        Ok(self.wait(client.create_container(request))?.container_id)
    }

    /// Starts a created container.
    pub fn start_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let mut client = self.client();
        self.wait(client.start_container(cri::StartContainerRequest { container_id }))?;
        Ok(())
    }

    /// Stops a container at once.
    pub fn stop_container(&self, id: &str) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: 0,
        };
        let mut client = self.client();
        self.wait(client.stop_container(request))?;
        Ok(())
    }

    /// Removes a container.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let container_id = id.to_owned();
        let mut client = self.client();
        self.wait(client.remove_container(cri::RemoveContainerRequest { container_id }))?;
        Ok(())
    }

    /// The container's state, and what the runtime tells of it besides: `pid`,
    /// `runtimeSpec` and more.
    pub fn container_status(&self, id: &str) -> Result<(cri::ContainerStatus, serde_json::Value)> {
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let mut client = self.client();
        let answer = self.wait(client.container_status(request))?;
        let status = answer
            .status
            .ok_or_else(|| internal(format!("no status of container {id} in the answer")))?;
        Ok((status, info(&answer.info)?))
    }

    /// Runs a command in a container.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<Output> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|s| (*s).to_owned()).collect(),
            timeout: 30,
        };
        let mut client = self.client();
        let answer = self.wait(client.exec_sync(request))?;
        Ok(Output {
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
            code: answer.exit_code,
        })
    }

    fn client(&self) -> Client<Channel> {
        Client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn wait<T>(
        &self,
        call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    ) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(answer) => Ok(answer?.into_inner()),
                Err(_) => Err(Refusal {
                    code: tonic::Code::DeadlineExceeded as i32,
                    message: format!("no answer from the runtime in {CALL_TIMEOUT:?}"),
                }),
            }
        })
    }

    fn sandbox_config(&self, spec: &PodSpec) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: spec.name.clone(),
                uid: format!("uid-{}-{}", spec.namespace, spec.name),
                namespace: spec.namespace.clone(),
                attempt: 0,
            }),
            // The host's network has the host's name: none may be asked for.
            hostname: String::new(),
            log_directory: self.log_dir.display().to_string(),
            labels: Default::default(),
            annotations: spec.annotations.clone().into_iter().collect(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.clone(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(spec.users_from.map(users))),
                    ..Default::default()
                }),
            }),
        }
    }
}

/// No network plugin is needed on the host's network; each container has its
/// own processes, as a kubelet asks by default.
fn namespaces(users: Option<cri::UserNamespace>) -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        pid: cri::NamespaceMode::Container.into(),
        ipc: cri::NamespaceMode::Pod.into(),
        target_id: String::new(),
        userns_options: users,
    }
}

/// A user namespace whose root is this id of the host.
fn users(first: u32) -> cri::UserNamespace {
    let mapping = cri::IdMapping {
        host_id: first,
        container_id: 0,
        length: 65536,
    };
    cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    }
}

/// The user namespace that all containers of the pod share; none: the host's.
fn users_of(pod: &Pod) -> Option<cri::UserNamespace> {
    let context = pod.config.linux.as_ref()?.security_context.as_ref()?;
    let namespaces = context.namespace_options.as_ref()?;
    namespaces.userns_options.clone()
}

fn container_config(
    spec: &ContainerSpec,
    users: Option<cri::UserNamespace>,
) -> cri::ContainerConfig {
    let mount = |m: &HostMount| cri::Mount {
        container_path: m.destination.clone(),
        host_path: m.source.display().to_string(),
        readonly: false,
        propagation: cri::MountPropagation::PropagationPrivate.into(),
    };
    let id = spec.user.as_ref().map(|u| cri::Int64Value { value: u.0 });
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: spec.name.clone(),
            attempt: spec.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: BUSYBOX.to_owned(),
        }),
        command: spec.command.clone(),
        mounts: spec.mounts.iter().map(mount).collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        log_path: format!("{}-{}.log", spec.name, spec.attempt),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(users)),
                run_as_user: id,
                run_as_group: id,
                supplemental_groups: spec.user.iter().flat_map(|u| u.1.clone()).collect(),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// The JSON text that a runtime puts under `info` in a verbose status.
fn info(map: &std::collections::HashMap<String, String>) -> Result<serde_json::Value> {
    let Some(text) = map.get("info") else {
        return Ok(serde_json::Value::Null);
    };
    serde_json::from_str(text).map_err(|e| internal(format!("the runtime's info is not JSON: {e}")))
}

fn internal(message: String) -> Refusal {
    Refusal {
        code: tonic::Code::Internal as i32,
        message,
    }
}
