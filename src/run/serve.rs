// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve`: control plane and node agent of one host.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{signal::unix::SignalKind, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::ports::{CountedCalls, CurrentWord, LocalNode};
use crate::{
    config::Config,
    control::{Control, ControlService, Settings, store::RedbStore},
    cri::Cri,
    csi::{DriverConfig, Registry, discovery::Discovery},
    error::{Error, Result},
    host::{durable, process},
    model::NodeName,
    node::{Agent, Layout, NodeSettings, Ports},
    nri::{self, SessionConfig, Status},
    nri_plugin::VolumePlugin,
    proto::api::control_server::ControlServer,
    secret::Vault,
    telemetry::{self, Metrics},
    transport,
};

/// How long a listing of the runtime may take.
const CRI_DEADLINE: Duration = Duration::from_secs(10);

/// How often drivers are asked how much of the published volumes is used.
const STATS_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether what is published is still of use.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The deadline of each call to a driver that registered itself.
const DISCOVERED_CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT.
pub(super) async fn serve(config: Config) -> Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    for dir in [&config.node.state_dir, &config.node.run_dir] {
        make_dir(dir)?;
    }
    // The socket comes first: a second daemon on the same directories ends here.
    let incoming = transport::bind(&config.socket()).await?;

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
    let store = Arc::new(RedbStore::open(
        &config.node.state_dir.join("control.redb"),
    )?);
    let local = Arc::new(LocalNode {
        name: name.clone(),
        agent: OnceLock::new(),
    });
    let control = Control::open(
        store,
        Arc::clone(&drivers),
        Arc::clone(&local) as Arc<_>,
        name.clone(),
        Settings {
            vault: Vault::new(config.secrets.dir.clone()),
            ..Settings::default()
        },
    )
    .await?;
    let agent = Agent::start(
        settings(&config, name),
        Ports {
            drivers,
            cri: Cri::new(config.runtime.cri_socket.clone(), CRI_DEADLINE),
            authority: Arc::new(CurrentWord(Arc::clone(&control))),
            vault: Vault::new(config.secrets.dir.clone()),
            metrics: Arc::clone(&metrics),
        },
        shutdown.clone(),
    )?;
    let _ = local.agent.set(Arc::clone(&agent));

    if let Some(listen) = config.metrics.listen {
        telemetry::serve(listen, Arc::clone(&metrics), shutdown.clone()).await?;
    }
    let plugin = Arc::new(VolumePlugin::new(agent, metrics));
    let session = SessionConfig {
        socket: config.runtime.nri_socket.clone(),
        name: config.runtime.plugin_name.clone(),
        index: config.runtime.plugin_index.clone(),
    };
    let (status, _) = watch::channel(Status::Disconnected {
        why: "not connected yet".into(),
    });
    let nri = tokio::spawn(nri::run(session, plugin, shutdown.clone(), status));

    // Verbs that wait and streams end first: the API stops when they have.
    let ending = tokio::spawn({
        let (control, shutdown) = (Arc::clone(&control), shutdown.clone());
        async move {
            shutdown.cancelled().await;
            control.shutdown().await;
        }
    });
    tracing::info!(socket = %config.socket().display(), "serving");
    let served = Server::builder()
        .add_service(ControlServer::new(ControlService::new(Arc::clone(
            &control,
        ))))
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned())
        .await
        .map_err(|e| Error::internal("the API stopped serving").with_source(e));
    shutdown.cancel();
    let _ = ending.await;
    let _ = nri.await;
    // The next start replaces a dead socket as well.
    let _ = std::fs::remove_file(config.socket());
    served
}

fn make_dir(dir: &Path) -> Result<()> {
    durable::make_dir(dir)
        .map_err(|e| Error::internal(format!("cannot make {}", dir.display())).with_source(e))
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
        stats_interval: STATS_INTERVAL,
        probe_interval: PROBE_INTERVAL,
        // Also when the file was replaced by a newer one meanwhile.
        helper: "/proc/self/exe".into(),
    }
}

/// Cancels the token at SIGTERM and SIGINT.
pub(super) fn stop_on_signals(shutdown: &CancellationToken) -> Result<()> {
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
    Ok(())
}
