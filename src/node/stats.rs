// SPDX-License-Identifier: Apache-2.0
//! How much of a volume is used. Asked by the volume's own task, so that it is
//! one call among the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Publication, VolumeRecord, volume::Volume};
use crate::{
    csi::{self, NodeStats, VolumeStats},
    error::{Error, Result},
    model::Scope,
    telemetry::{Fullness, OfVolume},
};

/// How long a driver may take to tell.
const DEADLINE: Duration = Duration::from_secs(3);
/// An answer of so long ago is as good as a new one.
const FRESH: Duration = Duration::from_secs(1);
/// An older answer than this is worse than none.
const STALE: Duration = Duration::from_secs(300);

/// What NodeGetVolumeStats told, in memory alone.
#[derive(Default)]
pub(super) struct Stats {
    asked: bool,
    /// How many calls have come to an end.
    ended: u64,
    last: Option<(Instant, Option<VolumeStats>)>,
    failure: Option<Error>,
}

impl Stats {
    /// The publication at which somebody wants to have it asked.
    pub(super) fn asked_for(&self, record: &VolumeRecord) -> Option<Scope> {
        let live = record.publications.iter().find(|p| p.is_live());
        live.filter(|_| self.asked).map(|p| p.scope.clone())
    }

    fn younger_than(&self, age: Duration) -> Option<Option<VolumeStats>> {
        let (at, told) = self.last.as_ref()?;
        (at.elapsed() < age).then(|| told.clone())
    }

    fn answer(&mut self, told: Result<Option<VolumeStats>>) {
        self.asked = false;
        self.ended += 1;
        match told {
            Ok(told) => {
                self.last = Some((Instant::now(), told));
                self.failure = None;
            }
            Err(error) => self.failure = Some(error),
        }
    }
}

impl Volume {
    /// What the driver tells; none: it does not tell, or the volume is not
    /// published here. An answer that is some minutes old stands in for one that
    /// does not come.
    pub(super) async fn stats(self: &Arc<Self>) -> Result<Option<VolumeStats>> {
        let deadline = Instant::now() + DEADLINE;
        let mut changed = self.changed.subscribe();
        let before = {
            let mut state = self.state.lock().await;
            if !state.record.publications.iter().any(Publication::is_live) {
                return Ok(None);
            }
            if let Some(told) = state.stats.younger_than(FRESH) {
                return Ok(told);
            }
            state.stats.asked = true;
            self.start(&mut state);
            state.stats.ended
        };
        loop {
            changed.mark_unchanged();
            {
                let state = self.state.lock().await;
                let stats = &state.stats;
                let late = Instant::now() >= deadline;
                if stats.ended > before || late {
                    let age = if late || stats.failure.is_some() {
                        STALE
                    } else {
                        DEADLINE
                    };
                    return match (stats.younger_than(age), &stats.failure) {
                        (Some(told), _) => Ok(told),
                        (None, Some(error)) => Err(Error::new(error.kind(), error.full_message())),
                        (None, None) => Err(Error::deadline(format!(
                            "the usage of {} is not told within {DEADLINE:?}: another call on it is under way",
                            self.key
                        ))),
                    };
                }
            }
            let _ = tokio::time::timeout_at(deadline.into(), changed.changed()).await;
        }
    }

    /// NodeGetVolumeStats at the publication of this scope.
    pub(super) async fn ask_stats(&self, scope: &Scope) {
        let asked = tokio::time::timeout(DEADLINE, async {
            let driver = self.shared.drivers.get(&self.key.driver)?;
            let request = NodeStats {
                volume_id: self.key.volume_id.clone(),
                volume_path: self.shared.layout.target(&self.key, scope),
                staging_path: self.shared.layout.staging(&self.key),
            };
            Ok(driver.node_stats(&request).await?)
        });
        let told = asked.await.unwrap_or_else(|_| {
            Err(Error::deadline(format!(
                "driver {} did not tell the usage of the volume within {DEADLINE:?}",
                self.key.driver
            )))
        });
        let mut state = self.state.lock().await;
        state.calling = false;
        if let (Ok(Some(told)), Some(p)) = (&told, state.record.publication(scope)) {
            let full = fullness(told);
            self.shared.metrics.usage().set(&of(p), &full);
        }
        state.stats.answer(told);
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The usage of what is not published any more is not told any longer.
    pub(super) async fn forget_usage(&self, publication: &Publication) {
        let mut state = self.state.lock().await;
        if !state.record.publications.iter().any(Publication::is_live) {
            state.stats.last = None;
            self.shared.metrics.usage().forget(&of(publication));
        }
    }
}

fn of(publication: &Publication) -> OfVolume {
    OfVolume {
        namespace: publication.actor.namespace.to_string(),
        actor: publication.actor.name.to_string(),
        volume: publication.volume.clone(),
    }
}

fn fullness(told: &VolumeStats) -> Fullness {
    let figures = |usage: csi::Usage| [usage.total, usage.used, usage.available];
    Fullness {
        bytes: told.bytes.map(figures),
        inodes: told.inodes.map(figures),
        abnormal: told.condition.as_ref().map(|c| c.abnormal),
    }
}
