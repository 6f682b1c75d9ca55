// SPDX-License-Identifier: Apache-2.0
//! A node that is being emptied: what runs goes on, with restarts of its
//! containers, and no volume is published for a pod that is new.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Agent, Holding};
use crate::{
    error::{Error, Result},
    host::durable,
    model::{Scope, VolumeKey},
};

/// Its presence in the state directory says that the node is being emptied.
const MARK: &str = "draining";

/// Whether the node is being emptied, also after a restart.
#[derive(Debug)]
pub(super) struct Drain {
    mark: PathBuf,
    on: AtomicBool,
}

impl Drain {
    pub(super) fn of(state_dir: &Path) -> Self {
        let mark = state_dir.join(MARK);
        let on = AtomicBool::new(mark.exists());
        Self { mark, on }
    }
}

impl Agent {
    /// Whether the node is being emptied.
    pub fn is_draining(&self) -> bool {
        self.drain.on.load(Ordering::Acquire)
    }

    /// Begins to empty the node, or ends that. Durable when it returns.
    pub async fn set_draining(&self, on: bool) -> Result<()> {
        let mark = self.drain.mark.clone();
        let set = move || match on {
            true => durable::write(&mark, b""),
            false => durable::remove(&mark),
        };
        let set = tokio::task::spawn_blocking(set).await;
        set.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| {
                let mark = self.drain.mark.display();
                let attempted = if on { "write" } else { "remove" };
                Error::internal(format!("cannot {attempted} {mark}")).with_source(e)
            })?;
        let was = self.drain.on.swap(on, Ordering::AcqRel);
        if was != on {
            tracing::info!(draining = on, "the node is told whether to take new pods");
        }
        self.shared.metrics.draining(on);
        Ok(())
    }

    /// What keeps the node from being empty.
    pub async fn blockers(&self) -> Vec<Holding> {
        let mut holdings = self.holdings().await;
        holdings.retain(|h| h.held_by.is_some());
        holdings
    }

    /// Refuses a scope that has nothing here yet, while the node is being emptied.
    pub(super) async fn check_drain(&self, key: &VolumeKey, scope: &Scope) -> Result<()> {
        if !self.is_draining() {
            return Ok(());
        }
        if let Some(known) = self.known(key)
            && known.state.lock().await.record.publication(scope).is_some()
        {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "node {} is being drained, so {key} is not published for a new pod: resume the actor on another node, or end the drain with `actor-volumes node uncordon`",
            self.settings.name
        )))
    }
}
