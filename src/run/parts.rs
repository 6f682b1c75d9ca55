// SPDX-License-Identifier: Apache-2.0
//! What the daemons are put together from.

use std::{fmt::Display, net::SocketAddr, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::unix::pipe,
    signal::unix::SignalKind,
    sync::watch,
    task::JoinHandle,
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{
    forward::Forward,
    gates::LocalDoor,
    ports::{Counted, CountedCalls},
};
use crate::{
    config::{Config, OnBreach},
    control::{
        Control, ControlService, NodePort, Settings,
        nodes::{NodeAdminService, Nodes, NodesService},
        store::RedbStore,
    },
    cri::Cri,
    csi::{DriverConfig, Registry, discovery::Discovery},
    error::{Error, Result},
    host::{child, process},
    keys::{KeyDir, TrustedKeys},
    model::NodeName,
    node::{Agent, AgentService, Authority, Layout, NodeSettings, Ports},
    nri::{self, SessionConfig, Status},
    nri_plugin::{Front, VolumePlugin},
    proto::api::{
        agent_server::AgentServer, control_server::ControlServer,
        node_admin_server::NodeAdminServer, nodes_server::NodesServer,
    },
    rpc::line,
    secret::Vault,
    telemetry::Metrics,
    transport::Gate,
};

/// How long a listing of the runtime may take.
const CRI_DEADLINE: Duration = Duration::from_secs(10);

/// How often drivers are asked how much of the published volumes is used.
const STATS_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether what is published is still of use.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// How long an orderly end may take.
pub(super) const END_WITHIN: Duration = Duration::from_secs(10);

/// The deadline of each call to a driver that registered itself.
const DISCOVERED_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How the runtime's events come in.
pub(super) enum Door {
    /// We connect to the runtime, again and again.
    Dial,
    /// The runtime has started this process, and is served already.
    Launched(Arc<Front>),
}

impl Door {
    /// Nothing is served yet: this comes first.
    pub(super) fn waits_for(&self, what: String) {
        if let Self::Launched(front) = self {
            front.waits_for(what);
        }
    }
}

/// What every daemon has.
pub(super) struct Base {
    pub(super) config: Config,
    pub(super) shutdown: CancellationToken,
    pub(super) name: NodeName,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drivers: Arc<Registry>,
}

impl Base {
    /// The parts of a daemon whose directories are its own.
    pub(super) fn new(config: Config, shutdown: CancellationToken) -> Result<Self> {
        let name = node_name(&config)?;
        let metrics = Arc::new(Metrics::default());
        let drivers = Arc::new(Registry::observed(
            drivers(&config)?,
            Arc::new(CountedCalls(Arc::clone(&metrics))),
        ));
        if let Some(dir) = &config.discovery.registration_dir {
            let discovery = Discovery {
                dir: dir.clone(),
                call_timeout: DISCOVERED_CALL_TIMEOUT,
            };
            tokio::spawn(discovery.run(Arc::clone(&drivers), shutdown.clone()));
        }
        Ok(Self {
            config,
            shutdown,
            name,
            metrics,
            drivers,
        })
    }

    fn vault(&self) -> Vault {
        Vault::new(self.config.secrets.dir.clone())
    }

    /// The control plane; `here`: the node agent of this host is its own.
    pub(super) async fn control(&self, here: bool) -> Result<(Arc<Control>, Arc<Nodes>)> {
        let store = Arc::new(RedbStore::open(
            &self.config.node.state_dir.join("control.redb"),
        )?);
        let keys = KeyDir::new(self.config.key_dir());
        keys.ensure()?;
        let settings = Settings {
            vault: self.vault(),
            keys: Some(keys),
            node_here: here,
            ..Settings::default()
        };
        let here = here.then(|| self.name.clone());
        let watcher = Arc::clone(&self.metrics);
        let nodes = Nodes::open(store.clone(), here, Arc::new(Counted(watcher)));
        let nodes = nodes.await?;
        let drivers = Arc::clone(&self.drivers);
        let port = Arc::clone(&nodes) as Arc<dyn NodePort>;
        let control = Control::open(store, drivers, port, self.name.clone(), settings).await?;
        nodes.start(&control).await?;
        let counted = Arc::downgrade(&control);
        self.metrics.before_look(move |population| {
            if let Some(control) = counted.upgrade() {
                let counts = control.counts();
                population.set(&counts.actors, &counts.volumes, counts.in_memory);
                let repairs = counts.repairs;
                population.repairs("ControllerPublishVolume", repairs.attached_again);
                population.repairs("ControllerUnpublishVolume", repairs.detached_again);
            }
        });
        Ok((control, nodes))
    }

    /// Listens for the node agent of this host, until the shutdown.
    pub(super) async fn listen_here(
        &self,
        control: &Arc<Control>,
        nodes: &Arc<Nodes>,
    ) -> Result<()> {
        let socket = self.config.nodes_socket();
        let LocalDoor { gate, incoming } = self.bind_nodes(&socket).await?;
        let service = NodesService::new(Arc::clone(control), Arc::clone(nodes));
        let service = service.only(self.name.clone());
        self.serve_nodes(socket.display(), &gate, service, incoming);
        Ok(())
    }

    /// Listens for nodes, where that is configured, until the shutdown.
    pub(super) async fn listen_for_nodes(
        &self,
        control: &Arc<Control>,
        nodes: &Arc<Nodes>,
    ) -> Result<()> {
        let Some(files) = self.config.control.files() else {
            return Ok(());
        };
        for address in &self.config.control.listen {
            let gate = self.node_gate()?;
            let (address, incoming) = gate.listen(*address, files.clone()).await?;
            tracing::info!(%address, "listening for nodes");
            let service = NodesService::new(Arc::clone(control), Arc::clone(nodes));
            self.serve_nodes(address, &gate, service, incoming);
        }
        Ok(())
    }

    fn serve_nodes<I, IO>(&self, at: impl Display, gate: &Gate, service: NodesService, incoming: I)
    where
        I: Stream<Item = std::io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (shutdown, at) = (self.shutdown.clone(), at.to_string());
        let served = gate
            .remote_server()
            .add_service(NodesServer::new(service).max_decoding_message_size(line::MAX_MESSAGE))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(at, %error, "the line for nodes stopped serving");
                shutdown.cancel();
            }
        });
    }

    /// Serves the API on the socket until the shutdown, which it brings about
    /// where it ends by itself. The control plane has ended when it returns.
    pub(super) async fn serve_api(
        &self,
        door: LocalDoor,
        control: &Arc<Control>,
        nodes: &Arc<Nodes>,
        agent: Option<Forward>,
    ) -> Result<()> {
        tracing::info!(socket = %self.config.socket().display(), "serving");
        // Verbs that wait and streams end first: the API stops when they have.
        let ending = tokio::spawn({
            let (control, shutdown) = (Arc::clone(control), self.shutdown.clone());
            async move {
                shutdown.cancelled().await;
                control.shutdown().await;
            }
        });
        let admin = NodeAdminService::new(Arc::clone(control), Arc::clone(nodes));
        let of_agent = agent.map(AgentServer::new);
        let LocalDoor { gate, incoming } = door;
        let bytes = gate.request_bytes();
        let api = ControlServer::new(ControlService::new(Arc::clone(control)));
        let served = gate
            .server()
            .add_service(api.max_decoding_message_size(bytes))
            .add_service(NodeAdminServer::new(admin).max_decoding_message_size(bytes))
            .add_optional_service(of_agent.map(|a| a.max_decoding_message_size(bytes)))
            .serve_with_incoming_shutdown(incoming, self.shutdown.clone().cancelled_owned())
            .await
            .map_err(|e| Error::internal("the API stopped serving").with_source(e));
        self.shutdown.cancel();
        let _ = ending.await;
        served
    }

    /// Answers the guard and the doctor until the shutdown.
    pub(super) fn serve_agent(&self, door: LocalDoor, agent: &Arc<Agent>) -> JoinHandle<()> {
        let LocalDoor { gate, incoming } = door;
        let service = AgentServer::new(AgentService::new(Arc::clone(agent)))
            .max_decoding_message_size(gate.request_bytes());
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let served = gate
                .server()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the node agent's socket stopped serving");
                shutdown.cancel();
            }
        })
    }

    /// The node agent, which trusts the keys that its control plane tells and those of
    /// the configuration.
    pub(super) fn agent(&self, authority: Arc<dyn Authority>) -> Result<Arc<Agent>> {
        let mut trusted = vec![self.config.told_key_dir()];
        trusted.extend(self.config.keys.trusted.iter().cloned());
        let ports = Ports {
            drivers: Arc::clone(&self.drivers),
            cri: Cri::new(self.config.runtime.cri().map(Path::to_owned), CRI_DEADLINE),
            authority,
            keys: Arc::new(TrustedKeys::open(trusted)),
            vault: self.vault(),
            metrics: Arc::clone(&self.metrics),
        };
        let settings = settings(&self.config, self.name.clone());
        Agent::start(settings, ports, self.shutdown.clone())
    }

    /// The plugin of the container runtime, until the shutdown.
    pub(super) fn nri(&self, door: Door, agent: Arc<Agent>) -> JoinHandle<()> {
        let plugin = VolumePlugin::new(agent, Arc::clone(&self.metrics));
        if let Door::Launched(front) = door {
            front.ready(plugin);
            return tokio::spawn(async {});
        }
        let Some(socket) = self.config.runtime.nri() else {
            tracing::info!("this node has no NRI: volumes come by hooks, wrapper, bundle or bind");
            return tokio::spawn(async {});
        };
        let session = SessionConfig {
            socket: socket.to_owned(),
            name: self.config.runtime.plugin_name.clone(),
            index: self.config.runtime.plugin_index.clone(),
        };
        let (status, _) = watch::channel(Status::Disconnected {
            why: "not connected yet".into(),
        });
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            nri::run(session, Arc::new(plugin), shutdown, status).await;
        })
    }

    /// Metrics over HTTP, where there is an address for them.
    pub(super) async fn metrics(&self, listen: Option<SocketAddr>) -> Result<()> {
        if let Some(listen) = listen {
            let (metrics, shutdown) = (Arc::clone(&self.metrics), self.shutdown.clone());
            crate::telemetry::serve(listen, metrics, shutdown).await?;
        }
        Ok(())
    }
}

fn node_name(config: &Config) -> Result<NodeName> {
    match &config.node.name {
        Some(name) => Ok(name.clone()),
        None => NodeName::new(process::hostname().to_ascii_lowercase())
            .map_err(|e| e.context("the host name cannot be the node's name, set node.name")),
    }
}

fn drivers(config: &Config) -> Result<Vec<DriverConfig>> {
    let of = |driver: &crate::config::Driver| {
        Ok(DriverConfig {
            name: driver.name.clone(),
            endpoint: driver.socket()?,
            controller: driver.controller()?,
            call_timeout: driver.call_timeout(),
            max_calls: driver.max_calls,
            mount_root: driver
                .mount_root
                .clone()
                .map(|theirs| (config.node.mount_root.clone(), theirs)),
        })
    };
    config.drivers().iter().map(of).collect()
}

fn settings(config: &Config, name: NodeName) -> NodeSettings {
    NodeSettings {
        name,
        layout: Layout::new(&config.node.state_dir, &config.node.mount_root),
        trusted_namespaces: config.node.trusted_namespaces.clone(),
        policy: config.policy.rules(),
        max_wait: Duration::from_millis(config.wait.max_ms),
        wait_percent: config.wait.budget_percent,
        member_grace: Duration::from_millis(config.node.member_grace_ms),
        sweep_interval: Duration::from_secs(config.node.sweep_interval_s),
        breach_interval: Duration::from_secs(config.node.breach_interval_s),
        stop_breaches: config.node.on_breach == OnBreach::StopSandbox,
        stats_interval: STATS_INTERVAL,
        probe_interval: PROBE_INTERVAL,
        helper: config.helper_socket(),
    }
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn shutdown() -> Result<CancellationToken> {
    let shutdown = signals()?;
    if let Some(parent) = child::parent() {
        let gone = until_gone(parent)
            .map_err(|e| Error::internal("cannot watch the parent process").with_source(e))?;
        tokio::spawn(async move {
            gone.await;
            // As after a kill: what is under way is on disk.
            std::process::exit(1);
        });
    }
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            shutdown.cancelled().await;
            // A thread of its own: the end of the async runtime is waited for as well.
            std::thread::spawn(end_anyway);
        }
    });
    Ok(shutdown)
}

/// The same, for a process that sees to its own end.
pub(super) fn signals() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = tokio::signal::unix::signal(kind)
            .map_err(|e| Error::internal("cannot listen for signals").with_source(e))?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            signal.recv().await;
            tracing::info!("shutting down");
            shutdown.cancel();
        });
    }
    Ok(shutdown)
}

/// Resolves when nobody has the other end of the pipe any more.
fn until_gone(pipe: OwnedFd) -> std::io::Result<impl Future<Output = ()>> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    Ok(async move {
        // Nothing is ever written to it.
        while !matches!(pipe.read(&mut [0; 16]).await, Ok(0) | Err(_)) {}
    })
}

/// What hangs, such as a look at a dead file system or a client that was stopped,
/// keeps no daemon from its end: whatever is under way is on disk, and taken up at
/// the next start, as after a crash.
fn end_anyway() {
    std::thread::sleep(END_WITHIN);
    tracing::warn!("not all that is under way has ended within {END_WITHIN:?}: it is left");
    std::process::exit(0);
}
