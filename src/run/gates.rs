// SPDX-License-Identifier: Apache-2.0
//! The doors of a daemon: who may come in by which.

use std::{path::Path, sync::Arc};

use super::parts::Base;
use crate::{
    error::Result,
    rpc,
    telemetry::Metrics,
    transport::{Gate, LocalIncoming, Refused, Rules, Watcher},
};

/// The daemon's own socket, with nobody served yet.
pub(super) struct LocalDoor {
    pub(super) gate: Gate,
    pub(super) incoming: LocalIncoming,
}

impl Base {
    /// Listens on a socket of the daemon.
    pub(super) async fn bind(&self, socket: &Path) -> Result<LocalDoor> {
        let gate = Gate::new(Rules {
            name: "socket",
            uids: self.config.node.allowed_uids.iter().copied().collect(),
            limits: self.config.limits.local(),
            ..self.rules()
        });
        let incoming = gate.bind(socket).await?;
        Ok(LocalDoor { gate, incoming })
    }

    /// Listens for the node agent of this host: root, or the user of this process.
    pub(super) async fn bind_nodes(&self, socket: &Path) -> Result<LocalDoor> {
        let gate = Gate::new(Rules {
            name: "nodes",
            limits: self.config.limits.local(),
            ..self.rules()
        });
        let incoming = gate.bind(socket).await?;
        Ok(LocalDoor { gate, incoming })
    }

    /// The door for nodes.
    pub(super) fn node_gate(&self) -> Result<Gate> {
        let names = self.config.control.allowed_names()?;
        if names.is_empty() {
            tracing::info!(
                "every node with a certificate of the authorities in control.tls.ca may connect: control.tls.allowed_names would name those that may"
            );
        }
        Ok(Gate::new(Rules {
            name: "nodes",
            names,
            limits: self.config.limits.nodes(),
            ..self.rules()
        }))
    }

    fn rules(&self) -> Rules {
        Rules {
            kinds: rpc::kind_of,
            watcher: Arc::new(Counted(Arc::clone(&self.metrics))),
            ..Rules::default()
        }
    }
}

/// Counts what the doors refuse.
struct Counted(Arc<Metrics>);

impl Watcher for Counted {
    fn refused(&self, door: &'static str, why: Refused) {
        self.0.doors().refused(door, why.as_str());
    }

    fn connections(&self, door: &'static str, now: usize) {
        self.0.doors().connections(door, now);
    }
}
