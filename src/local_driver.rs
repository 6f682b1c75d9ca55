// SPDX-License-Identifier: Apache-2.0
//! The embedded CSI driver: a directory per volume, shown by bind mounts.
//!
//! It keeps no promise of size: all volumes share the file system of its root,
//! whose figures NodeGetVolumeStats tells, and an expansion is a note.
//! A new volume is an empty directory of root with mode 0755. It runs as root,
//! in the mount namespace of the container runtime or in one whose mounts reach it.
//!
//! ```text
//! <root>/lock                        held by the one driver that serves this root
//! <root>/volumes/<id>/volume.json    what was asked for; its presence makes the volume
//! <root>/volumes/<id>/node.json      how it was staged and published
//! <root>/volumes/<id>/data/          the files
//! <root>/trash/<id>/                 a volume that is being removed
//! ```

mod check;
mod controller;
mod identity;
mod mounts;
mod node;
mod stats;
mod store;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    error::{Error, Result},
    proto::csi::{
        controller_server::ControllerServer, identity_server::IdentityServer,
        node_server::NodeServer,
    },
    transport::{Gate, Rules},
};
use store::Store;

/// The name under which it serves unless told otherwise.
pub const DEFAULT_NAME: &str = "local.actor-volumes.dev";

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The unix socket to serve on.
    pub socket: PathBuf,
    /// Where the volumes are kept; made if it is not there.
    pub root: PathBuf,
    /// The answer to GetPluginInfo.
    pub name: String,
    /// The answer to NodeGetInfo.
    pub node_id: String,
}

/// Serves until `shutdown`; calls under way are finished first.
pub async fn serve(options: Options, shutdown: CancellationToken) -> Result<()> {
    let root = options.root.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&root))
        .await
        .map_err(|e| Error::internal("opening the local driver's root failed").with_source(e))??;
    let driver = LocalDriver {
        name: options.name,
        node_id: options.node_id,
        store: Arc::new(store),
        busy: Arc::default(),
    };
    let gate = Gate::new(Rules {
        name: "local-driver",
        ..Rules::default()
    });
    let incoming = gate.bind(&options.socket).await?;
    tracing::info!(socket = %options.socket.display(), root = %options.root.display(), name = %driver.name, "the local CSI driver serves");
    let served = gate
        .server()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(driver.clone()))
        .add_service(NodeServer::new(driver))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(|e| Error::internal("the local CSI driver stopped serving").with_source(e));
    // CSI: a plugin leaves nothing beside its socket. A failure changes nothing
    // for the next start, which replaces a dead socket.
    let _ = std::fs::remove_file(&options.socket);
    served
}

/// The three services of CSI.
#[derive(Clone)]
struct LocalDriver {
    name: String,
    node_id: String,
    store: Arc<Store>,
    /// Volumes with a call under way.
    busy: Arc<Mutex<HashSet<String>>>,
}

impl LocalDriver {
    /// Does blocking work on one volume, one call at a time. A caller that
    /// hangs up does not stop it.
    async fn on_volume<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Turn::take(&self.busy, id)?;
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&store)
        });
        done.await
            .map_err(|e| Status::internal(format!("a call of the local driver failed: {e}")))?
            .map_err(|e| Status::new(e.kind().code().into(), e.full_message()))
    }
}

/// The right to work on a volume, given back at the end.
struct Turn {
    busy: Arc<Mutex<HashSet<String>>>,
    id: String,
}

impl Turn {
    fn take(busy: &Arc<Mutex<HashSet<String>>>, id: &str) -> Result<Self, Status> {
        let mut taken = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(id.into()) {
            return Err(Status::aborted(format!(
                "another call on volume {id} is under way: retry"
            )));
        }
        Ok(Self {
            busy: busy.clone(),
            id: id.into(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_call_at_a_time() {
        let busy = Arc::default();
        let turn = Turn::take(&busy, "a").unwrap();
        let refused = Turn::take(&busy, "a").err().unwrap();
        assert_eq!(refused.code(), tonic::Code::Aborted);
        assert!(Turn::take(&busy, "b").is_ok());
        drop(turn);
        assert!(Turn::take(&busy, "a").is_ok());
    }
}
