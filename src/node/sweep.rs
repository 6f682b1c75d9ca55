// SPDX-License-Identifier: Apache-2.0
//! Finds scopes whose end no event told: NRI never relays the end of pods that
//! are older than a restart of the runtime.
//!
//! A scope is taken for over when the recorded runtime has not had it in two
//! listings in a row. Its release still waits for the proof that nobody holds
//! the volume.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Agent, Publication};
use crate::{cri::Listing, model::Scope};

/// The two listings that agree are at least this far apart.
const APART: Duration = Duration::from_millis(500);

pub(super) struct Sweep {
    agent: Arc<Agent>,
    /// What was missing in the last listing.
    missing: HashMap<Scope, &'static str>,
}

impl Sweep {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            missing: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.agent.settings.sweep_interval) => false,
                () = self.agent.sweep_now.notified() => true,
            };
            self.once().await;
            if asked && !self.missing.is_empty() {
                tokio::time::sleep(APART).await;
                self.once().await;
            }
        }
    }

    async fn once(&mut self) {
        let mut used = Vec::new();
        for volume in self.agent.volumes() {
            let state = volume.state.lock().await;
            if !state.record.publications.is_empty() {
                used.push((Arc::clone(&volume), state.record.publications.clone()));
            }
        }
        if used.is_empty() {
            self.missing.clear();
            return;
        }
        let listing = match self.agent.shared.cri.list().await {
            Ok(listing) => listing,
            Err(error) => {
                // No listing, no word: what was missing before counts no more.
                tracing::warn!("the sweep sees nothing: {}", error.full_message());
                self.missing.clear();
                return;
            }
        };
        let before = std::mem::take(&mut self.missing);
        for (volume, publications) in &used {
            for publication in publications {
                if publication.ending.is_none()
                    && publication.scope.runtime() == &self.agent.runtime
                    && let Some(why) = over(publication, &listing)
                {
                    self.missing.insert(publication.scope.clone(), why);
                }
            }
            let seen_twice = |p: &Publication| {
                let why = *self.missing.get(&p.scope)?;
                before.contains_key(&p.scope).then(|| why.to_owned())
            };
            volume.end(seen_twice).await;
            // Members of a container scope whose stop no event told.
            let stopped = |scope: &Scope, member: &str| {
                !scope.is_whole_sandbox()
                    && publications
                        .iter()
                        .any(|p| p.scope == *scope && p.members.contains(member))
                    && listing
                        .containers
                        .get(member)
                        .is_none_or(|c| !c.running && !c.created)
            };
            if let Err(error) = volume.members_gone(stopped).await {
                tracing::error!("{}", error.full_message());
            }
        }
    }
}

/// Why the listing shows no living sandbox for this publication.
fn over(publication: &Publication, listing: &Listing) -> Option<&'static str> {
    let sandbox = publication.scope.sandbox();
    match listing.sandboxes.get(sandbox) {
        Some(found) if found.ready => None,
        Some(_) if listing.runs_in(sandbox) => None,
        Some(_) => Some("the runtime lists its sandbox as not ready, with no running container"),
        None => Some("the runtime does not list its sandbox any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Phase, record::tests::publication},
        *,
    };
    use crate::cri::{Container, Sandbox};

    fn listing(ready: bool, running: bool) -> Listing {
        let mut listing = Listing::default();
        listing.sandboxes.insert(
            "s1".into(),
            Sandbox {
                ready,
                ..Sandbox::default()
            },
        );
        listing.containers.insert(
            "c1".into(),
            Container {
                sandbox: "s1".into(),
                running,
                ..Container::default()
            },
        );
        listing
    }

    #[test]
    fn a_ready_sandbox_or_a_running_container_keeps_the_scope() {
        let published = publication("s1", 1, Phase::Done);
        assert!(over(&published, &listing(true, false)).is_none());
        assert!(over(&published, &listing(false, true)).is_none());
        assert!(over(&published, &listing(false, false)).is_some());
        assert!(over(&published, &Listing::default()).is_some());
    }
}
