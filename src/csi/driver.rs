// SPDX-License-Identifier: Apache-2.0
//! One driver: one process that serves all, or a Node service here and a
//! Controller service elsewhere.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tonic::{Request, Response, Status};

use super::{
    CallError, Capabilities, DriverConfig,
    call::{Rpc, Side},
    connection::Connection,
    peer::Peer,
};
use crate::{
    error::Error,
    model::DriverName,
    transport::{Channel, Endpoint},
};

/// What is known of a driver, for people.
#[derive(Debug, Clone)]
pub struct DriverStatus {
    /// The name in the configuration.
    pub name: DriverName,
    /// Where it is; both places of a driver that has two.
    pub endpoint: String,
    /// Whether it answered and said that it is ready, at all its places.
    pub ready: bool,
    /// `vendor_version`, where known.
    pub version: String,
    /// Advertised capabilities, where known.
    pub capabilities: Vec<String>,
    /// Why it is not ready.
    pub message: String,
}

/// Told of every call that was sent. It must be quick.
pub trait Observer: Send + Sync {
    /// `code` is the gRPC code in the spelling of the specification.
    fn called(&self, driver: &DriverName, rpc: &'static str, code: &'static str, took: Duration);
}

/// One driver.
pub struct Driver {
    name: DriverName,
    /// Serves the Node service, and the Controller service where there is no
    /// other place for it.
    node: Option<Peer>,
    controller: Option<Peer>,
    mount_root: Option<(PathBuf, PathBuf)>,
}

impl Driver {
    pub(super) fn new(config: DriverConfig, observer: &Arc<dyn Observer>) -> Self {
        let peer = |endpoint| {
            Peer::new(
                config.name.clone(),
                endpoint,
                config.call_timeout,
                config.max_calls,
                Arc::clone(observer),
            )
        };
        Self {
            node: config.endpoint.map(Endpoint::Unix).map(peer),
            controller: config.controller.map(peer),
            mount_root: config.mount_root,
            name: config.name,
        }
    }

    /// The socket of its Node service.
    pub fn node_socket(&self) -> Option<&Path> {
        match &self.node.as_ref()?.endpoint {
            Endpoint::Unix(path) => Some(path),
            Endpoint::Tls(_) => None,
        }
    }

    /// Its name in the configuration, which it must answer to.
    pub fn name(&self) -> &DriverName {
        &self.name
    }

    /// What is known of it; asks it whether it is ready.
    pub async fn status(&self) -> DriverStatus {
        let mut status = DriverStatus {
            name: self.name.clone(),
            endpoint: String::new(),
            ready: true,
            version: String::new(),
            capabilities: Vec::new(),
            message: String::new(),
        };
        for peer in [&self.node, &self.controller].into_iter().flatten() {
            if !status.endpoint.is_empty() {
                status.endpoint.push_str(", ");
            }
            status.endpoint.push_str(&peer.endpoint.to_string());
            let (known, ready) = peer.status().await;
            if let Some(known) = known {
                for name in &known.capabilities.names {
                    if !status.capabilities.contains(name) {
                        status.capabilities.push(name.clone());
                    }
                }
                status.version = known.version;
            }
            if let Err(why) = ready {
                status.ready = false;
                status.message = why;
            }
        }
        status
    }

    /// What it can do. Connects if needed; waits for readiness within the
    /// connect deadline.
    pub async fn capabilities(&self) -> Result<Capabilities, CallError> {
        let (peer, side) = match (&self.controller, &self.node) {
            (Some(controller), _) => (controller, Side::Controller),
            (None, Some(node)) => (node, Side::Node),
            (None, None) => return Err(self.nowhere("GetPluginCapabilities")),
        };
        let connection = peer.connect().await?;
        let other = self.other(side).await?;
        Ok(merge(side, &connection.capabilities, other.as_deref()))
    }

    /// Sends one call to the place that serves it; see [`Peer::call`].
    pub(super) async fn call<Q, T, F>(
        &self,
        rpc: Rpc,
        build: impl Fn(&Capabilities) -> Result<Option<Q>, CallError>,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<Option<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let other = self.other(rpc.side).await?;
        let build = |own: &Capabilities| build(&merge(rpc.side, own, other.as_deref()));
        self.peer(rpc)?.call(rpc, build, send).await
    }

    /// The connection of the Node service.
    pub(super) async fn connect_node(&self, rpc: Rpc) -> Result<Arc<Connection>, CallError> {
        self.peer(rpc)?.connect().await
    }

    fn peer(&self, rpc: Rpc) -> Result<&Peer, CallError> {
        let found = match rpc.side {
            Side::Node => self.node.as_ref(),
            Side::Controller => self.controller.as_ref().or(self.node.as_ref()),
        };
        found.ok_or_else(|| self.nowhere(rpc.name))
    }

    fn nowhere(&self, rpc: &'static str) -> CallError {
        let error = Error::precondition(format!(
            "CSI driver {} has no endpoint for this call here: set `endpoint` in its [[driver]] table",
            self.name
        ));
        CallError::last(rpc, error)
    }

    /// What the other of two places can do. What was learnt of it once is good
    /// enough: a place that is down must not stop the calls to this one.
    async fn other(&self, side: Side) -> Result<Option<Arc<Capabilities>>, CallError> {
        let (Some(node), Some(controller)) = (&self.node, &self.controller) else {
            return Ok(None);
        };
        let other = match side {
            Side::Controller => node,
            Side::Node => controller,
        };
        other.known().await.map(Some)
    }

    /// The path as the driver sees it.
    pub fn map_path(&self, path: &Path) -> PathBuf {
        match &self.mount_root {
            Some((ours, theirs)) => match path.strip_prefix(ours) {
                Ok(below) => theirs.join(below),
                Err(_) => path.to_owned(),
            },
            None => path.to_owned(),
        }
    }
}

/// The Controller service's capabilities of one place and the Node service's of
/// the other.
fn merge(side: Side, own: &Capabilities, other: Option<&Capabilities>) -> Capabilities {
    let Some(other) = other else {
        return own.clone();
    };
    match side {
        Side::Controller => own.with_node_of(other),
        Side::Node => other.with_node_of(own),
    }
}
