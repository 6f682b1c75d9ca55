// SPDX-License-Identifier: Apache-2.0
//! Processes that nobody waits for. Where this one is the first of its process
//! namespace, as in a container, it gets those of parts that have died.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::signal::unix::SignalKind;

use crate::{
    error::{Error, Result},
    host::process,
};

/// The children that are waited for.
#[derive(Clone, Default)]
pub(super) struct Ours(Arc<Mutex<BTreeSet<u32>>>);

impl Ours {
    /// None yet. From now on others are taken from the process table when they end.
    pub(super) fn reaping_others() -> Result<Self> {
        let mut ended = tokio::signal::unix::signal(SignalKind::child())
            .map_err(|e| Error::internal("cannot listen for ends of processes").with_source(e))?;
        let ours = Self::default();
        let watched = ours.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                // One that was started and is not known yet cannot be among them: there
                // is no other thread.
                let ours = watched.known().clone();
                if let Err(error) = process::reap(|pid| !ours.contains(&pid)) {
                    tracing::warn!(%error, "processes that have ended may be left in the table");
                }
            }
        });
        Ok(ours)
    }

    /// This one is waited for as long as what it gives lives.
    pub(super) fn know(&self, pid: u32) -> Known {
        self.known().insert(pid);
        Known {
            ours: self.clone(),
            pid,
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Known {
    ours: Ours,
    pid: u32,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.ours.known().remove(&self.pid);
    }
}
