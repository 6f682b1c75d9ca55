// SPDX-License-Identifier: Apache-2.0
//! A control plane and three nodes, each in a runtime of its own, so that it can
//! be killed and started again over what is on disk. One driver serves them all,
//! with a socket for its controller and one for each node.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    control::{
        Control, NodePort, ResumeOptions, Settings, VolumeView,
        nodes::{NodeWatcher, Nodes, NodesService},
        store::RedbStore,
    },
    cri::Cri,
    csi::{DriverConfig, Registry},
    delivery::Needs,
    error::{Error, Result},
    host::process,
    keys::{KeyDir, TrustedKeys},
    link::{self, LinkSettings, Word},
    model::{ActorRef, ContainerView, NodeName, SandboxView},
    node::{Agent, Layout, NodeSettings, Ports},
    proto::api::{self, nodes_server::NodesServer},
    secret::Vault,
    telemetry::Metrics,
    transport::{self, Endpoint, KEEP_ALIVE, TlsEndpoint, TlsFiles},
};
use tempfile::TempDir;
use testkit::{
    csi::{Backend, CsiDriver, Options},
    runtime::ListedRuntime,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{AT_LAST, authority::Authority, proxy::Proxy};

const DRIVER: &str = "testkit.actor-volumes.dev";

pub(crate) const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// The node of the control plane's own host.
pub(crate) const HERE: &str = "node-here";

const CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard}
provisioner: testkit.actor-volumes.dev
";

const TEMPLATE: &str = "
apiVersion: actor-volumes.dev/v1alpha1
kind: ActorTemplate
metadata: {name: t}
spec:
  containers:
  - name: agent
    volumeMounts: [{name: one, mountPath: /one}]
  volumes:
  - {name: one, externalVolumeTemplate: {capacity: 1Mi, storageClassName: standard}}
";

struct ControlRun {
    threads: Runtime,
    control: Arc<Control>,
    nodes: Arc<Nodes>,
}

pub(crate) struct Host {
    threads: Runtime,
    pub(crate) agent: Arc<Agent>,
    pub(crate) word: Arc<Word>,
}

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    pub(crate) driver: CsiDriver,
    runtimes: BTreeMap<&'static str, ListedRuntime>,
    proxies: BTreeMap<&'static str, Proxy>,
    pub(crate) port: u16,
    control: Option<ControlRun>,
    pub(crate) hosts: BTreeMap<&'static str, Host>,
}

struct Unwatched;

impl NodeWatcher for Unwatched {
    fn changed(&self, _: &BTreeMap<&'static str, usize>, _: usize) {}
}

fn threads() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn end(threads: Runtime) {
    let ending = move || threads.shutdown_timeout(Duration::from_secs(20));
    tokio::task::spawn_blocking(ending).await.unwrap();
}

impl Site {
    /// A control plane, with no node yet.
    pub(crate) async fn start(memory: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let root = dir.path().join("backend");
        let backend = if memory {
            Backend::Memory
        } else {
            Backend::Bind { root }
        };
        let options = Options {
            attach: true,
            persist: false,
            ..Options::new(backend)
        };
        let driver = CsiDriver::start_cluster(dir.path(), options, &NAMES).await;
        let mut site = Self {
            dir,
            authority: Authority::new(),
            driver,
            runtimes: BTreeMap::new(),
            proxies: BTreeMap::new(),
            port: 0,
            control: None,
            hosts: BTreeMap::new(),
        };
        let tls = site.path("control");
        site.authority
            .files(&tls, "control.example", &site.authority);
        site.start_control().await;
        site.with_control(|control| async move {
            control.apply_storage_class(CLASS).await.unwrap();
            control.apply_template(TEMPLATE).await.unwrap();
        })
        .await;
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control_files(&self) -> TlsFiles {
        let dir = self.path("control");
        TlsFiles {
            ca: dir.join("ca.crt"),
            cert: dir.join("tls.crt"),
            key: dir.join("tls.key"),
            server_name: None,
        }
    }

    /// The keys of the control plane.
    pub(crate) fn keys(&self) -> KeyDir {
        KeyDir::new(self.path("keys"))
    }

    pub(crate) async fn start_control(&mut self) {
        let threads = threads();
        let (store, socket) = (self.path("control.redb"), self.path("controller.sock"));
        let (files, port) = (self.control_files(), self.port);
        let keys = self.keys();
        let started = threads.spawn(async move {
            let drivers = Arc::new(Registry::new(vec![DriverConfig {
                endpoint: None,
                controller: Some(Endpoint::Unix(socket.clone())),
                ..DriverConfig::unix(DRIVER.parse().unwrap(), socket, Duration::from_secs(5))
            }]));
            let store = Arc::new(RedbStore::open(&store).unwrap());
            let nodes = Nodes::open(
                store.clone(),
                Some(HERE.parse().unwrap()),
                Arc::new(Unwatched),
            );
            let nodes = nodes.await.unwrap();
            keys.ensure().unwrap();
            let settings = Settings {
                keys: Some(keys),
                node_here: false,
                ..Settings::default()
            };
            let port_of_nodes = nodes.clone() as Arc<dyn NodePort>;
            let name = "control".parse().unwrap();
            let control = Control::open(store, drivers, port_of_nodes, name, settings);
            let control = control.await.unwrap();
            nodes.start(&control).await.unwrap();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (address, incoming) = transport::listen(address, files).await.unwrap();
            let service = NodesService::new(control.clone(), nodes.clone());
            tokio::spawn(
                Server::builder()
                    .http2_keepalive_interval(Some(KEEP_ALIVE))
                    .http2_keepalive_timeout(Some(KEEP_ALIVE))
                    .add_service(NodesServer::new(service))
                    .serve_with_incoming(incoming),
            );
            (control, nodes, address.port())
        });
        let (control, nodes, port) = started.await.unwrap();
        self.port = port;
        self.control = Some(ControlRun {
            threads,
            control,
            nodes,
        });
    }

    /// Lets the node of the control plane's own host come, by what it gives.
    pub(crate) async fn listen_here(&self) -> Endpoint {
        let run = self.control.as_ref().unwrap();
        let socket = self.path("nodes.sock");
        let service = NodesService::new(run.control.clone(), run.nodes.clone());
        let service = service.only(HERE.parse().unwrap());
        let at = socket.clone();
        let serving = run.threads.spawn(async move {
            let incoming = transport::bind(&at).await.unwrap();
            let server = Server::builder().add_service(NodesServer::new(service));
            tokio::spawn(server.serve_with_incoming(incoming));
        });
        serving.await.unwrap();
        Endpoint::Unix(socket)
    }

    /// Starts the node agent that connects there.
    pub(crate) async fn start_here(&mut self, here: &Endpoint) {
        let link = LinkSettings {
            node: HERE.parse().unwrap(),
            endpoint: here.clone(),
            ..self.link(NAMES[0])
        };
        let host = self.host(NAMES[0], link).await;
        self.hosts.insert(NAMES[0], host);
    }

    pub(crate) async fn kill_control(&mut self) {
        let run = self.control.take().unwrap();
        drop((run.control, run.nodes));
        end(run.threads).await;
    }

    /// Starts a node over what is on its disk.
    pub(crate) async fn start_node(&mut self, name: &'static str) {
        if !self.proxies.contains_key(name) {
            let files = self.path(&format!("tls-{name}"));
            self.authority.files(&files, name, &self.authority);
            self.proxies.insert(name, Proxy::start(self.port).await);
            let cri = self.path(&format!("cri-{name}.sock"));
            self.runtimes.insert(name, ListedRuntime::start(&cri).await);
        }
        let host = self.host(name, self.link(name));
        let host = host.await;
        self.hosts.insert(name, host);
    }

    /// How a node of this name connects.
    pub(crate) fn link(&self, name: &'static str) -> LinkSettings {
        let tls = self.path(&format!("tls-{name}"));
        let state = self.path(&format!("state-{name}"));
        fs::create_dir_all(&state).unwrap();
        LinkSettings {
            node: name.parse().unwrap(),
            instance: link::instance(&state).unwrap(),
            told_keys: state.join("told-keys"),
            boot_id: process::boot_id(),
            endpoint: Endpoint::Tls(TlsEndpoint {
                host: "127.0.0.1".into(),
                port: self.proxies.get(name).map_or(self.port, |p| p.port),
                tls: TlsFiles {
                    ca: tls.join("ca.crt"),
                    cert: tls.join("tls.crt"),
                    key: tls.join("tls.key"),
                    server_name: Some("control.example".into()),
                },
            }),
        }
    }

    /// A node agent with its line.
    pub(crate) async fn host(&self, name: &'static str, link: LinkSettings) -> Host {
        let threads = threads();
        let dir = self.dir.path().to_owned();
        let state = self.path(&format!("state-{name}"));
        let told = link.told_keys.clone();
        let started = threads.spawn(async move {
            let drivers = Arc::new(Registry::new(vec![DriverConfig::unix(
                DRIVER.parse().unwrap(),
                dir.join(format!("{name}.sock")),
                Duration::from_secs(5),
            )]));
            let settings = NodeSettings {
                name: name.parse().unwrap(),
                layout: Layout::new(
                    &dir.join(format!("state-{name}")),
                    &dir.join(format!("m-{name}")),
                ),
                trusted_namespaces: Vec::new(),
                policy: actor_volumes::config::Policy::default().rules(),
                max_wait: Duration::from_secs(1),
                wait_percent: 100,
                member_grace: Duration::from_millis(200),
                sweep_interval: Duration::from_millis(300),
                breach_interval: Duration::from_millis(300),
                stop_breaches: false,
                stats_interval: Duration::ZERO,
                probe_interval: Duration::ZERO,
                helper: dir.join("helper.sock"),
            };
            let word = Arc::new(Word::new("the control plane of the test", &state).unwrap());
            let ports = Ports {
                drivers: drivers.clone(),
                cri: Cri::new(
                    Some(dir.join(format!("cri-{name}.sock"))),
                    Duration::from_secs(5),
                ),
                authority: word.clone(),
                keys: Arc::new(TrustedKeys::open(vec![told, dir.join("trusted")])),
                vault: Vault::default(),
                metrics: Arc::new(Metrics::default()),
            };
            let shutdown = CancellationToken::new();
            let agent = Agent::start(settings, ports, shutdown.clone()).unwrap();
            tokio::spawn(link::run(
                link,
                agent.clone(),
                drivers,
                word.clone(),
                shutdown,
            ));
            (agent, word)
        });
        let (agent, word) = started.await.unwrap();
        Host {
            threads,
            agent,
            word,
        }
    }

    pub(crate) async fn kill_node(&mut self, name: &str) {
        let host = self.hosts.remove(name).unwrap();
        drop((host.agent, host.word));
        end(host.threads).await;
    }

    pub(crate) async fn stop(mut self) {
        for name in NAMES {
            if self.hosts.contains_key(name) {
                self.kill_node(name).await;
            }
        }
        if self.control.is_some() {
            self.kill_control().await;
        }
    }

    pub(crate) fn cut(&self, name: &str, cut: bool) {
        self.proxies[name].cut(cut);
    }

    pub(crate) fn nodes(&self) -> &Arc<Nodes> {
        &self.control.as_ref().unwrap().nodes
    }

    pub(crate) fn node(&self, name: &str) -> Option<api::Node> {
        self.nodes().one(&name.parse().unwrap()).ok()
    }

    pub(crate) async fn with_control<T, F>(&self, work: impl FnOnce(Arc<Control>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let run = self.control.as_ref().unwrap();
        run.threads.spawn(work(run.control.clone())).await.unwrap()
    }

    pub(crate) async fn fence(&self, name: &str, confirm: bool) -> Result<()> {
        let (nodes, node): (_, NodeName) = (self.nodes().clone(), name.parse().unwrap());
        self.with_control(
            |control| async move { nodes.fence(&control, &node, confirm, "a test").await },
        )
        .await
    }

    pub(crate) async fn reset(&self, name: &str, confirm: bool) -> Result<()> {
        let (nodes, node): (_, NodeName) = (self.nodes().clone(), name.parse().unwrap());
        self.with_control(|control| async move { nodes.reset(&control, &node, confirm).await })
            .await
    }

    /// Waits until the control plane says so of the node.
    pub(crate) async fn until_node(&self, name: &str, what: impl Fn(&api::Node) -> bool) {
        let start = Instant::now();
        loop {
            let node = self.node(name);
            if node.as_ref().is_some_and(&what) {
                return;
            }
            let text = serde_json::to_string(&node).unwrap();
            assert!(start.elapsed() < AT_LAST, "{name}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn until_state(&self, name: &str, state: &str) {
        self.until_node(name, |node| node.state == state).await;
    }

    pub(crate) async fn create(&self, actor: &str) {
        let actor: ActorRef = actor.parse().unwrap();
        self.with_control(|control| async move {
            let template = "t".parse().unwrap();
            control
                .create_actor(
                    &actor,
                    &template,
                    Default::default(),
                    Some(Duration::from_secs(30)),
                )
                .await
                .unwrap();
        })
        .await;
    }

    /// A pod's annotations, from a resume.
    pub(crate) async fn resume(
        &self,
        actor: &str,
        node: &str,
        within: Duration,
    ) -> Result<BTreeMap<String, String>> {
        self.resume_with(actor, node, within, false).await
    }

    /// The same, maybe with the contexts in them.
    pub(crate) async fn resume_with(
        &self,
        actor: &str,
        node: &str,
        within: Duration,
        whole: bool,
    ) -> Result<BTreeMap<String, String>> {
        let actor: ActorRef = actor.parse().unwrap();
        let options = ResumeOptions {
            node: Some(node.parse().unwrap()),
            ..ResumeOptions::default()
        };
        self.with_control(|control| async move {
            let (_, grant) = control.resume_actor(&actor, options, within).await?;
            let grant = if whole {
                grant.with_contexts()
            } else {
                grant.without_contexts()
            };
            control.annotations(&grant).await
        })
        .await
    }

    pub(crate) async fn suspend(&self, actor: &str, within: Duration) -> Result<()> {
        let actor: ActorRef = actor.parse().unwrap();
        self.with_control(|control| async move {
            control
                .suspend_actor(&actor, None, true, within)
                .await
                .map(drop)
        })
        .await
    }

    pub(crate) async fn delete(&self, actor: &str, within: Duration) -> Result<()> {
        let actor: ActorRef = actor.parse().unwrap();
        self.with_control(|control| async move {
            control.delete_actor(&actor, None, Some(within)).await
        })
        .await
    }

    /// What `actor show` says.
    pub(crate) async fn message(&self, actor: &str) -> String {
        let actor: ActorRef = actor.parse().unwrap();
        self.with_control(|control| async move { control.actor(&actor).await.unwrap().message })
            .await
    }

    /// What `volume show` says of the actor's only volume.
    pub(crate) async fn volume(&self, actor: &str) -> VolumeView {
        let actor: ActorRef = actor.parse().unwrap();
        self.with_control(|control| async move {
            let actor = control.actor(&actor).await.unwrap();
            control.volume(&actor.volumes[0].volume.uid).await.unwrap()
        })
        .await
    }

    /// A pod of this name on a node, which its runtime lists as ready.
    pub(crate) fn pod(&self, node: &str, id: &str, with: &BTreeMap<String, String>) -> SandboxView {
        self.runtimes[node].set(|lists| {
            lists.sandboxes.insert(id.into(), true);
        });
        SandboxView {
            id: id.into(),
            name: format!("pod-{id}"),
            namespace: "agents".into(),
            uid: id.into(),
            annotations: with.clone(),
            ..SandboxView::default()
        }
    }

    /// One try to create the pod's container.
    pub(crate) async fn try_container(&self, node: &str, pod: &SandboxView) -> Result<Needs> {
        let host = &self.hosts[node];
        let (agent, pod) = (host.agent.clone(), pod.clone());
        let task = host.threads.spawn(async move {
            let container = ContainerView {
                id: format!("{}-c", pod.id),
                sandbox: pod.id.clone(),
                name: "agent".into(),
                ..ContainerView::default()
            };
            let until = Instant::now() + Duration::from_secs(1);
            agent.container_created(&pod, &container, until).await
        });
        task.await.unwrap()
    }

    /// As a kubelet does: until it succeeds. Gives the mount's source.
    pub(crate) async fn container(&self, node: &str, pod: &SandboxView) -> PathBuf {
        let start = Instant::now();
        loop {
            match self.try_container(node, pod).await {
                Ok(needs) => return needs.mounts[0].source.clone(),
                Err(error) => assert!(start.elapsed() < AT_LAST, "{}", error.full_message()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pod ends.
    pub(crate) fn end_pod(&self, node: &str, id: &str) {
        self.runtimes[node].set(|lists| {
            lists.sandboxes.remove(id);
        });
        if let Some(host) = self.hosts.get(node) {
            let _in_host = host.threads.enter();
            host.agent.sandbox_over(id, "it was stopped");
        }
    }
}

/// The message of an error that must be one.
pub(crate) fn refusal<T>(answer: Result<T>) -> String {
    let error: Error = answer.err().expect("it is to be refused");
    error.full_message()
}
