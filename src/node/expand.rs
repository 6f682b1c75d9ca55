// SPDX-License-Identifier: Apache-2.0
//! What the control plane asks of a volume's calls: that it is expanded, and
//! that nothing is called for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::volume::{Failure, Volume};
use crate::error::{Error, Result};

/// What came of NodeExpandVolume, in memory alone.
#[derive(Default)]
pub(super) struct Expansion {
    failure: Option<Failure>,
    /// How many calls have failed.
    failures: u64,
}

impl Expansion {
    /// Whether it is too early for the next try.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.failure.as_ref().is_some_and(|f| f.retry_at > now)
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|f| f.retry_at)
    }

    pub(super) fn failed(&mut self, error: &Error) -> Failure {
        let failure = Failure::after(self.failure.as_ref(), error);
        self.failures += 1;
        self.failure = Some(failure.clone());
        failure
    }

    pub(super) fn succeeded(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Volume {
    /// Asks for NodeExpandVolume; durable, whatever comes of it now. True: what
    /// is on the volume has this size. False: it is not published, and is
    /// expanded once it is. An error is that of the next try; it is repeated in
    /// the background unless the driver's no is final.
    pub(super) async fn expand(self: &Arc<Self>, bytes: u64) -> Result<bool> {
        let mut changed = self.changed.subscribe();
        let before = {
            let mut state = self.state.lock().await;
            if state.record.expanded >= Some(bytes) {
                return Ok(true);
            }
            let mut next = state.record.clone();
            next.expand = next.expand.max(Some(bytes));
            if next != state.record {
                self.save(&mut state, next).await?;
            }
            if let Some(failure) = &mut state.expansion.failure {
                failure.hurry();
            }
            self.start(&mut state);
            state.expansion.failures
        };
        loop {
            changed.mark_unchanged();
            {
                let state = self.state.lock().await;
                if state.record.expanded >= Some(bytes) {
                    return Ok(true);
                }
                if let Some(failure) = &state.expansion.failure
                    && state.expansion.failures > before
                {
                    return Err(Error::new(failure.kind, failure.message.clone()));
                }
                if !state.record.publications.iter().any(|p| p.is_live()) {
                    return Ok(false);
                }
            }
            if changed.changed().await.is_err() {
                return Ok(false);
            }
        }
    }

    /// When it returns no CSI call on the volume is in flight, and none begins
    /// for so long. Containers that need one wait meanwhile.
    pub(super) async fn quiet(&self, length: Duration) {
        let mut changed = self.changed.subscribe();
        let until = Instant::now() + length;
        loop {
            changed.mark_unchanged();
            {
                let mut state = self.state.lock().await;
                state.quiet_until = Some(until);
                if !state.calling {
                    return;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Calls may begin again.
    pub(super) async fn unquiet(self: &Arc<Self>) {
        let mut state = self.state.lock().await;
        state.quiet_until = None;
        self.start(&mut state);
    }
}
