// SPDX-License-Identifier: Apache-2.0
//! The end of containers that no pod holds: a door tells it, or it is found that the
//! container is gone. No runtime can be asked for all that it has, so that the absence
//! counts of the process that made it, and of every mount of the volume elsewhere.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{Agent, Publication, anchor::Born, proof, volume::Volume};
use crate::{
    error::{Error, Result},
    model::Scope,
    proto::api,
};

/// Two looks that agree are at least so far apart.
const APART: Duration = Duration::from_millis(100);

/// How long the process is waited for that deletes a container. What is left then, the
/// sweep finds.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Nobody waits longer, whatever is asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const GONE: &str = "its container is gone";

/// What earlier looks showed.
#[derive(Debug, Default)]
pub(super) struct Vanished {
    /// Scopes that the last look did not see, since when.
    missing: HashMap<Scope, Instant>,
}

impl Agent {
    /// The container is over, or was never made: what it was given is released once
    /// nobody has it.
    pub async fn release_container(
        self: &Arc<Self>,
        asked: api::ReleaseContainerRequest,
    ) -> Result<api::ReleaseContainerResponse> {
        let path = |text: &String| (!text.is_empty()).then(|| Path::new(text).to_owned());
        let (root, bundle) = (path(&asked.runtime_root), path(&asked.bundle));
        if asked.container_id.is_empty() || (root.is_none() && bundle.is_none()) {
            return Err(Error::invalid(
                "container_id, and runtime_root or bundle, must not be empty",
            ));
        }
        let id = asked.container_id;
        let is_it = |p: &Publication| match &p.scope {
            Scope::Container { container, .. } => {
                let anchor = p.anchor.as_ref();
                *container == id
                    && anchor.is_some_and(|a| a.is_at(root.as_deref(), bundle.as_deref()))
            }
            Scope::Member { .. } => p.members.contains(&id),
            Scope::Sandbox { .. } => false,
        };
        let mut meant = Vec::new();
        for volume in self.volumes() {
            let state = volume.state.lock().await;
            let scopes = state.record.publications.iter().filter(|p| is_it(p));
            let scopes: Vec<_> = scopes.map(|p| p.scope.clone()).collect();
            drop(state);
            if !scopes.is_empty() {
                meant.push(Meant { volume, scopes });
            }
        }
        let until = Instant::now() + Duration::from_millis(asked.wait_ms.into()).min(LONGEST_WAIT);
        let Some(deleter) = asked.after else {
            for Meant { volume, scopes } in &meant {
                // In a warm sandbox the scope is over with its last container.
                let is_gone = |scope: &Scope, member: &str| member == id && scopes.contains(scope);
                volume.members_gone(is_gone).await?;
                let over = |p: &Publication| {
                    let over = scopes.contains(&p.scope) && p.members.is_empty();
                    over.then(|| "its container is over".to_owned())
                };
                volume.end(over).await;
            }
            return Ok(wait(&meant, until).await);
        };
        // The runtime tells of the end of a pod's containers.
        for one in &mut meant {
            one.scopes.retain(|scope| scope.sandbox().is_none());
        }
        let deleter = Born {
            pid: deleter.pid,
            start_time: deleter.start_time,
        };
        let agent = Arc::clone(self);
        let ending: Vec<_> = meant.iter().map(|m| Arc::clone(&m.volume)).collect();
        let end = tokio::spawn(async move {
            gone(deleter).await;
            for volume in ending {
                agent.end_gone(&volume).await;
            }
        });
        let _ = tokio::time::timeout_at(until.into(), end).await;
        Ok(wait(&meant, until).await)
    }

    /// Ends what containers had of this volume that are gone.
    pub(super) async fn end_gone(&self, volume: &Arc<Volume>) {
        let first = self.gone_of(volume).await;
        if first.is_empty() {
            return;
        }
        tokio::time::sleep(APART).await;
        let second = self.gone_of(volume).await;
        let both = |p: &Publication| {
            let gone = first.contains(&p.scope) && second.contains(&p.scope);
            gone.then(|| GONE.to_owned())
        };
        volume.end(both).await;
    }

    /// Scopes of the volume whose containers are not to be seen.
    async fn gone_of(&self, volume: &Arc<Volume>) -> Vec<Scope> {
        let mut gone = Vec::new();
        for publication in of_hosts(volume).await {
            match self.is_gone(volume, &publication).await {
                Ok(None) => gone.push(publication.scope),
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(
                    "it is not known whether {} is gone: {}",
                    publication.scope,
                    error.full_message()
                ),
            }
        }
        gone
    }

    /// Why it is not; none: it is.
    async fn is_gone(
        &self,
        volume: &Arc<Volume>,
        publication: &Publication,
    ) -> Result<Option<String>> {
        let driver = self.shared.drivers.get(&volume.key.driver)?;
        volume.lives(&driver, publication).await
    }

    /// One look at all containers that no pod holds. Those that two looks in a row did
    /// not see are over.
    pub(super) async fn sweep_hosts(self: &Arc<Self>, before: &mut Vanished) {
        let missing = std::mem::take(&mut before.missing);
        let now = Instant::now();
        let mut looks = JoinSet::new();
        for volume in self.volumes() {
            if of_hosts(&volume).await.is_empty() {
                continue;
            }
            // Side by side: one look through all processes answers for many.
            let agent = Arc::clone(self);
            looks.spawn(async move {
                let gone = agent.gone_of(&volume).await;
                (volume, gone)
            });
        }
        for (volume, gone) in looks.join_all().await {
            for scope in &gone {
                let since = *missing.get(scope).unwrap_or(&now);
                before.missing.insert(scope.clone(), since);
            }
            let over = |p: &Publication| {
                let since = before
                    .missing
                    .get(&p.scope)
                    .filter(|_| gone.contains(&p.scope));
                let apart = since.is_some_and(|since| now.duration_since(*since) >= APART);
                apart.then(|| GONE.to_owned())
            };
            volume.end(over).await;
        }
    }
}

/// The publications of the volume for containers that no pod holds, which are not over.
async fn of_hosts(volume: &Volume) -> Vec<Publication> {
    let state = volume.state.lock().await;
    let of_hosts = state.record.publications.iter();
    let of_hosts = of_hosts.filter(|p| p.scope.sandbox().is_none() && p.ending.is_none());
    of_hosts.cloned().collect()
}

/// Waits for the end of a process, not for ever.
async fn gone(process: Born) {
    let until = Instant::now() + DELETED_WITHIN;
    while Instant::now() < until {
        match proof::look("a process", move || process.lives()).await {
            Ok(Ok(true)) => tokio::time::sleep(LOOK_EVERY).await,
            _ => return,
        }
    }
}

/// What a container has of a volume.
struct Meant {
    volume: Arc<Volume>,
    scopes: Vec<Scope>,
}

/// Waits until nothing of these is left, and tells what is.
async fn wait(meant: &[Meant], until: Instant) -> api::ReleaseContainerResponse {
    for Meant { volume, scopes } in meant {
        let mut changed = volume.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let left = {
                let state = volume.state.lock().await;
                let mut left = state.record.publications.iter();
                let left = left.find(|p| scopes.contains(&p.scope));
                left.map(|p| match state.held_by.get(&Some(p.scope.clone())) {
                    Some(hold) => hold.by.clone(),
                    None => format!("{} is being unpublished", volume.key),
                })
            };
            let Some(held_by) = left else { break };
            let changes = tokio::time::timeout_at(until.into(), changed.changed());
            if changes.await.is_err() {
                return api::ReleaseContainerResponse {
                    released: false,
                    held_by,
                };
            }
        }
    }
    api::ReleaseContainerResponse {
        released: true,
        held_by: String::new(),
    }
}
