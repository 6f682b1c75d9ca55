// SPDX-License-Identifier: Apache-2.0
//! What the daemons are put together from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{signal::unix::SignalKind, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::ports::CountedCalls;
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
    host::process,
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
    transport::{self, KEEP_ALIVE},
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

    /// The control plane, with the node of this process if there is one.
    pub(super) async fn control(
        &self,
        local: Option<Arc<dyn NodePort>>,
    ) -> Result<(Arc<Control>, Arc<Nodes>)> {
        let store = Arc::new(RedbStore::open(
            &self.config.node.state_dir.join("control.redb"),
        )?);
        let keys = KeyDir::new(self.config.key_dir());
        keys.ensure()?;
        let settings = Settings {
            vault: self.vault(),
            keys: Some(keys),
            node_here: local.is_some(),
            ..Settings::default()
        };
        let local = local.map(|port| (self.name.clone(), port));
        let watcher = Arc::clone(&self.metrics);
        let nodes = Nodes::open(
            store.clone(),
            local,
            Arc::new(super::ports::Counted(watcher)),
        );
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
            let (address, incoming) = transport::listen(*address, files.clone()).await?;
            tracing::info!(%address, "listening for nodes");
            let service = NodesService::new(Arc::clone(control), Arc::clone(nodes));
            let served = Server::builder()
                .http2_keepalive_interval(Some(KEEP_ALIVE))
                .http2_keepalive_timeout(Some(KEEP_ALIVE))
                .add_service(NodesServer::new(service).max_decoding_message_size(line::MAX_MESSAGE))
                .serve_with_incoming_shutdown(incoming, self.shutdown.clone().cancelled_owned());
            let shutdown = self.shutdown.clone();
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%address, %error, "the line for nodes stopped serving");
                    shutdown.cancel();
                }
            });
        }
        Ok(())
    }

    /// Serves the API on the socket until the shutdown, which it brings about
    /// where it ends by itself. The control plane has ended when it returns.
    pub(super) async fn serve_api(
        &self,
        incoming: tokio_stream::wrappers::UnixListenerStream,
        control: &Arc<Control>,
        nodes: &Arc<Nodes>,
        agent: Option<&Arc<Agent>>,
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
        let of_agent = agent.map(|a| AgentServer::new(AgentService::new(Arc::clone(a))));
        let served = Server::builder()
            .add_service(ControlServer::new(ControlService::new(Arc::clone(control))))
            .add_service(NodeAdminServer::new(admin))
            .add_optional_service(of_agent)
            .serve_with_incoming_shutdown(incoming, self.shutdown.clone().cancelled_owned())
            .await
            .map_err(|e| Error::internal("the API stopped serving").with_source(e));
        self.shutdown.cancel();
        let _ = ending.await;
        served
    }

    /// Answers the guard and the doctor on the socket of a node without a control
    /// plane of its own, until the shutdown.
    pub(super) fn serve_agent(
        &self,
        incoming: tokio_stream::wrappers::UnixListenerStream,
        agent: &Arc<Agent>,
    ) -> JoinHandle<()> {
        let service = AgentServer::new(AgentService::new(Arc::clone(agent)));
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the node agent's socket stopped serving");
                shutdown.cancel();
            }
        })
    }

    /// The node agent, which trusts the public keys in this directory and in those of
    /// the configuration.
    pub(super) fn agent(&self, authority: Arc<dyn Authority>, keys: PathBuf) -> Result<Arc<Agent>> {
        let mut trusted = vec![keys];
        trusted.extend(self.config.keys.trusted.iter().cloned());
        let ports = Ports {
            drivers: Arc::clone(&self.drivers),
            cri: Cri::new(self.config.runtime.cri_socket.clone(), CRI_DEADLINE),
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
        let session = SessionConfig {
            socket: self.config.runtime.nri_socket.clone(),
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

    /// Metrics over HTTP, where that is configured.
    pub(super) async fn metrics(&self) -> Result<()> {
        if let Some(listen) = self.config.metrics.listen {
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
    config.driver.iter().map(of).collect()
}

fn settings(config: &Config, name: NodeName) -> NodeSettings {
    NodeSettings {
        name,
        layout: Layout::new(&config.node.state_dir, &config.node.mount_root),
        trusted_namespaces: config.node.trusted_namespaces.clone(),
        max_wait: Duration::from_millis(config.wait.max_ms),
        wait_percent: config.wait.budget_percent,
        member_grace: Duration::from_millis(config.node.member_grace_ms),
        sweep_interval: Duration::from_secs(config.node.sweep_interval_s),
        breach_interval: Duration::from_secs(config.node.breach_interval_s),
        stop_breaches: config.node.on_breach == OnBreach::StopSandbox,
        stats_interval: STATS_INTERVAL,
        probe_interval: PROBE_INTERVAL,
        // Also when the file was replaced by a newer one meanwhile.
        helper: "/proc/self/exe".into(),
    }
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn shutdown() -> Result<CancellationToken> {
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

/// What hangs, such as a look at a dead file system or a client that was stopped,
/// keeps no daemon from its end: whatever is under way is on disk, and taken up at
/// the next start, as after a crash.
fn end_anyway() {
    std::thread::sleep(END_WITHIN);
    tracing::warn!("not all that is under way has ended within {END_WITHIN:?}: it is left");
    std::process::exit(0);
}
