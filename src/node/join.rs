// SPDX-License-Identifier: Apache-2.0
//! A container that waits for its volume, and whether what it would get is of
//! any use.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Phase, Publication,
    helper::Probed,
    proof::{self, Glance},
    volume::{State, Volume},
};
use crate::{
    delivery::{Flags, Shown},
    error::{Error, Result},
    model::{Scope, VolumeMode},
};

/// What was published so long ago or less, and given to nobody, is not examined.
const FRESH: Duration = Duration::from_secs(5);

/// What an examination gets at least, also when no wait is left.
const EXAMINE_WITHIN: Duration = Duration::from_millis(300);

/// File systems whose server is this kernel: it cannot go away under them, so
/// that no helper is needed to find out.
const LOCAL: [&str; 11] = [
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "squashfs", "tmpfs",
    "xfs",
];

impl Volume {
    /// Waits until the scope's publication is done, not longer than `until`.
    pub(super) async fn join(
        self: &Arc<Self>,
        name: &str,
        scope: &Scope,
        until: Instant,
    ) -> Result<Shown> {
        let mut changed = self.changed.subscribe();
        let mut examined = false;
        loop {
            changed.mark_unchanged();
            let ready = {
                let mut state = self.state.lock().await;
                let ready = self.ready(&state, name, scope)?;
                if ready.is_none() && Instant::now() >= until {
                    state.waited.insert(scope.clone());
                    return Err(Error::unavailable(format!(
                        "volume {name} is still being published for {scope}: retry"
                    )));
                }
                if ready.is_some() {
                    let since = state.fresh.remove(scope);
                    examined |= since.is_some_and(|since| since.elapsed() < FRESH);
                }
                ready
            };
            match ready {
                Some(shown) if examined => return Ok(shown),
                Some(_) => {
                    let within = until.max(Instant::now() + EXAMINE_WITHIN);
                    let looked = tokio::time::timeout_at(within.into(), self.examine(scope)).await;
                    if looked.is_err() {
                        self.state.lock().await.pending.probed(true);
                    }
                    looked
                        .unwrap_or_else(|_| Err(no_answer()))
                        .map_err(|e| e.context(format_args!("volume {name}")))?;
                    examined = true;
                }
                None => {
                    let _ = tokio::time::timeout_at(until.into(), changed.changed()).await;
                }
            }
        }
    }

    /// Whether a creation in this scope has waited before.
    pub(super) async fn has_waited(&self, scope: &Scope) -> bool {
        self.state.lock().await.waited.contains(scope)
    }

    fn ready(&self, state: &State, name: &str, scope: &Scope) -> Result<Option<Shown>> {
        let Some(found) = state.record.publication(scope) else {
            return Err(Error::unavailable(format!(
                "volume {name} was released from {scope} meanwhile: retry"
            )));
        };
        if let Some(why) = &found.ending {
            return Err(Error::unavailable(format!(
                "{scope} is ending ({why}): volume {name} is not published there any more"
            )));
        }
        if found.is_live() {
            return Ok(Some(Shown {
                path: self.shared.layout.target(&self.key, scope),
                sub_paths: self.sub_paths(found),
                device: found.device.map(|d| (d.major, d.minor)),
                flags: Flags::default(),
            }));
        }
        if let Some(hold) = state.held_by.get(&Some(scope.clone())) {
            return Err(Error::unavailable(format!(
                "volume {name} of {scope}: {}; retry when it has ended",
                hold.by
            )));
        }
        if let Some(failure) = &state.failure {
            return Err(Error::unavailable(format!(
                "volume {name} is not published yet: retry; attempt {} failed and is repeated in the background: {}",
                failure.attempts, failure.message
            )));
        }
        let blocks = |p: &&Publication| {
            let beside = p.request.access_mode.is_shared() && p.request == found.request;
            p.scope != *scope && p.phase != Phase::Absent && !beside
        };
        if let Some(other) = state.record.publications.iter().find(blocks) {
            let hold = state.held_by.get(&Some(other.scope.clone()));
            if other.ending.is_none() || hold.is_some() {
                let held_by = hold.map_or("it is in use there", |h| h.by.as_str());
                return Err(Error::unavailable(format!(
                    "volume {name} is still published for {}: {held_by}; retry when it has ended",
                    other.user()
                )));
            }
        }
        Ok(None)
    }

    /// Looks whether what is published for the scope is still of use, and sets
    /// off its repair where it is not.
    pub(super) async fn examine(self: &Arc<Self>, scope: &Scope) -> Result<()> {
        let found = self.state.lock().await.record.publication(scope).cloned();
        let Some(found) = found.filter(Publication::is_live) else {
            return Ok(());
        };
        let Some(why) = self.fault(&found).await? else {
            return Ok(());
        };
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        match next.publication_mut(scope) {
            // Nothing was done to it meanwhile.
            Some(now) if now.is_live() && now.identity == found.identity => {
                now.corrupt = Some(why.clone());
            }
            _ => return Ok(()),
        }
        tracing::error!(volume = %self.key, pod = found.pod, "what is published for {scope} is of no use any more: {why}");
        self.shared
            .metrics
            .corrupted_mount(self.key.driver.as_str());
        // It counts also when it cannot be written: it is found again.
        let written = self.shared.records.write(&next).await;
        state.record = next;
        self.start(&mut state);
        written
    }

    /// Why what is published is of no use any more; none: it is.
    pub(super) async fn fault(&self, publication: &Publication) -> Result<Option<String>> {
        let target = self.shared.layout.target(&self.key, &publication.scope);
        if publication.request.volume_mode == VolumeMode::Block {
            let same = self.see(target).await?.device == publication.device;
            return Ok((!same).then(|| "the block device is gone".to_owned()));
        }
        match proof::glance(target).await? {
            Glance::Nothing => return Ok(Some("nothing is mounted there any more".to_owned())),
            Glance::Corrupted(why) => return Ok(Some(why)),
            Glance::Mount => {}
        }
        if let Some(why) = self.sub_path_fault(publication).await? {
            return Ok(Some(why));
        }
        if LOCAL.contains(&publication.file_system.as_str()) {
            return Ok(None);
        }
        let place = self.shared.layout.place(&self.key, &publication.scope);
        let probed = self.shared.helpers.probe(place).await;
        match self.heard(probed).await? {
            Probed::Ok => Ok(None),
            Probed::Corrupted(why) => Ok(Some(why)),
            Probed::Hangs => Err(no_answer()),
        }
    }

    /// What is at a path of this volume.
    pub(super) async fn see(&self, path: PathBuf) -> Result<proof::Seen> {
        proof::see(path, self.shared.layout.volume_dir(&self.key)).await
    }
}

fn no_answer() -> Error {
    Error::unavailable(
        "its file system does not answer: is its server up? A container that is created now would hang",
    )
}
