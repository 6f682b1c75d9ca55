// SPDX-License-Identifier: Apache-2.0
//! NodeUnpublishVolume and NodeUnstageVolume: first the proof that nobody uses
//! the volume, then the call, then the look whether it was carried out.

use std::path::PathBuf;

use super::{Done, LOOK_AGAIN, LOOK_AGAIN_AT_FAULT, QUICK_REPEATS};
use crate::{
    csi::{CallError, Driver, Outcome},
    error::{Error, Kind, Result},
    host::{
        crash::{self, CrashPoint},
        device::Device,
        durable,
        mountinfo::Identity,
    },
    model::{Scope, VolumeMode},
    node::{
        Phase, Publication,
        proof::{self, Seen},
        record::Staging,
        volume::Volume,
    },
};

/// By what those who use a volume are found.
#[derive(Default)]
struct Traces {
    identity: Option<Identity>,
    device: Option<Device>,
}

impl Volume {
    pub(super) async fn unpublish(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let target = self.shared.layout.target(&self.key, scope);
        let Some(publication) = self.publication(scope).await else {
            return Ok(Done::Step);
        };
        let repair = publication.ending.is_none() && publication.phase == Phase::Done;
        if repair && self.has_recovered(&publication).await? {
            return Ok(Done::Step);
        }
        let held = |by: String| match &publication.corrupt {
            Some(why) if repair => Done::Held(
                format!("what is published is of no use ({why}), and {by}: it is left as it is"),
                LOOK_AGAIN_AT_FAULT,
            ),
            _ => Done::Held(by, LOOK_AGAIN),
        };
        if let Some(running) = self.running_member(&publication).await? {
            return Ok(held(running));
        }
        if let Some(making) = self.still_made(&publication).await? {
            return Ok(held(making));
        }
        let traces = self.traces(&publication).await?;
        if let Some(user) = self.user_by(driver, &publication, &traces).await? {
            return Ok(held(user));
        }
        self.intend(scope, |record, _| {
            if let Some(p) = record.publication_mut(scope) {
                p.phase = Phase::Undoing;
                p.identity.clone_from(&traces.identity);
                p.device = traces.device;
            }
        })
        .await?;
        crash::hit(CrashPoint::UnpublishIntended);
        self.hide_sub_paths(&publication).await?;
        let volume_id = &self.key.volume_id;
        self.until_gone("NodeUnpublishVolume", &target, || {
            driver.node_unpublish(volume_id, &target)
        })
        .await?;
        crash::hit(CrashPoint::UnpublishAnswered);
        remove_empty(target.clone()).await?;
        self.commit_with_next(|record| {
            record.staging.identity.clone_from(&traces.identity);
            record.staging.device = traces.device;
            match record.publication_mut(scope) {
                Some(p) if p.ending.is_none() => {
                    p.undone();
                    record.staging.stale = true;
                }
                _ => record.publications.retain(|p| p.scope != *scope),
            }
        })
        .await;
        crash::hit(CrashPoint::UnpublishRecorded);
        self.forget_usage(&publication).await;
        Ok(Done::Step)
    }

    async fn traces(&self, publication: &Publication) -> Result<Traces> {
        Ok(match (&publication.identity, publication.device) {
            (None, None) => {
                let target = self.shared.layout.target(&self.key, &publication.scope);
                Traces::of(&self.see(target).await?)
            }
            (identity, device) => Traces {
                identity: identity.clone(),
                device,
            },
        })
    }

    /// Who uses what is published for a scope, elsewhere than where it is published.
    pub(in crate::node) async fn user_of(
        &self,
        driver: &Driver,
        publication: &Publication,
    ) -> Result<Option<String>> {
        let traces = self.traces(publication).await?;
        self.user_by(driver, publication, &traces).await
    }

    async fn user_by(
        &self,
        driver: &Driver,
        publication: &Publication,
        traces: &Traces,
    ) -> Result<Option<String>> {
        let layout = &self.shared.layout;
        let known = [
            layout.target(&self.key, &publication.scope),
            layout.staging(&self.key),
        ];
        let known = known
            .into_iter()
            .chain(self.sub_paths(publication).into_values())
            .collect();
        let is_block = publication.request.volume_mode == VolumeMode::Block;
        let containers = containers(publication, is_block);
        self.holder(driver, traces, known, containers).await
    }

    /// What was of no use a while ago may be of use again.
    async fn has_recovered(&self, publication: &Publication) -> Result<bool> {
        let scope = &publication.scope;
        let waits = {
            let state = self.state.lock().await;
            state.held_by.contains_key(&Some(scope.clone()))
        };
        if !waits || self.fault(publication).await?.is_some() {
            return Ok(false);
        }
        tracing::info!(volume = %self.key, pod = publication.pod, "what is published for {scope} is of use again");
        self.commit(|record| {
            if let Some(p) = record.publication_mut(scope) {
                p.corrupt = None;
            }
        })
        .await;
        Ok(true)
    }

    pub(super) async fn unstage(&self, driver: &Driver) -> Result<Done> {
        let staging = self.shared.layout.staging(&self.key);
        let traces = {
            let staging = &self.state.lock().await.record.staging;
            Traces {
                identity: staging.identity.clone(),
                device: staging.device,
            }
        };
        // I2: a copy of the mount that some other namespace took before the
        // release would go on writing; it is named, and the release waits.
        let known = vec![staging.clone()];
        if let Some(holder) = self.holder(driver, &traces, known, Vec::new()).await? {
            return Ok(Done::Held(holder, LOOK_AGAIN));
        }
        {
            let mut state = self.state.lock().await;
            let mut next = state.record.clone();
            if next.publications.iter().any(|p| p.phase != Phase::Absent) {
                return Ok(Done::Step);
            }
            next.staging.phase = Phase::Undoing;
            self.save(&mut state, next).await?;
        }
        crash::hit(CrashPoint::UnstageIntended);
        let volume_id = &self.key.volume_id;
        self.until_gone("NodeUnstageVolume", &staging, || {
            driver.node_unstage(volume_id, &staging)
        })
        .await?;
        crash::hit(CrashPoint::UnstageAnswered);
        let nowhere = Vec::new();
        if let Some(holder) = self.holder(driver, &traces, nowhere, Vec::new()).await? {
            return Ok(Done::Held(holder, LOOK_AGAIN));
        }
        for dir in [
            staging,
            self.shared.layout.publications(&self.key),
            self.shared.layout.volume_dir(&self.key),
        ] {
            remove_empty(dir).await?;
        }
        self.commit(|record| record.staging = Staging::default())
            .await;
        crash::hit(CrashPoint::UnstageRecorded);
        self.settled().await;
        Ok(Done::Step)
    }

    /// Calls until nothing is at the path any more: one call takes away one of
    /// the mounts that a repeated publish may have stacked there. As long as
    /// there are fewer of them each time it goes on; then a few times more.
    async fn until_gone<F>(
        &self,
        rpc: &'static str,
        path: &std::path::Path,
        call: impl Fn() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<(), CallError>>,
    {
        let mut left = QUICK_REPEATS;
        let mut depth = usize::MAX;
        loop {
            // A driver that keeps nothing in mind answers NOT_FOUND where an
            // earlier try was carried out after all, and would do so for ever.
            // That the mount is gone is for us to see.
            let not_found = match call().await {
                Err(e) if e.outcome == Outcome::Final && e.error.kind() == Kind::NotFound => {
                    Some(e)
                }
                said => {
                    said?;
                    None
                }
            };
            let seen = self.see(path.to_owned()).await?;
            match not_found {
                Some(e) if seen.is_nothing() => {
                    tracing::info!(volume = %self.key, "{e}; nothing is there: done");
                    return Ok(());
                }
                Some(e) => return Err(e.into()),
                None if seen.is_nothing() => return Ok(()),
                None => {}
            }
            if seen.mounts.len() < depth {
                depth = seen.mounts.len();
            } else if left > 0 {
                left -= 1;
            } else {
                let what = format!("{} is still there", path.display());
                return Err(self.broken_promise(rpc, &what));
            }
        }
    }

    /// A member that the runtime says is running. Those that it no longer runs
    /// are taken off the list.
    async fn running_member(&self, publication: &Publication) -> Result<Option<String>> {
        if publication.members.is_empty() {
            return Ok(None);
        }
        let listing = self.shared.proof.listing().await?;
        Ok(publication
            .members
            .iter()
            .find(|id| listing.containers.get(*id).is_some_and(|c| c.running))
            .map(|id| format!("container {id} is running")))
    }

    /// Who has the volume mounted in another namespace, elsewhere than at the
    /// `known` paths: a mount there ends together with ours. Or who uses it as a
    /// device.
    async fn holder(
        &self,
        driver: &Driver,
        traces: &Traces,
        known: Vec<PathBuf>,
        containers: Vec<String>,
    ) -> Result<Option<String>> {
        let proof = &self.shared.proof;
        let socket = || driver.node_socket().map(std::path::Path::to_owned);
        if let Some(identity) = &traces.identity
            && let Some(holder) = proof
                .holder(identity.clone(), known, containers.clone(), socket())
                .await?
        {
            return Ok(Some(holder.to_string()));
        }
        let Some(device) = traces.device else {
            return Ok(None);
        };
        let user = proof.user(device, containers, socket()).await?;
        Ok(user.map(|u| u.to_string()))
    }
}

impl Traces {
    fn of(seen: &Seen) -> Self {
        Self {
            identity: seen.mount().map(|m| m.identity.clone()),
            device: seen.device,
        }
    }
}

/// The containers by whose names the processes of the scope are known.
///
/// Of a block volume any process of them counts, so that the sandbox is named
/// only where the scope ends with it.
fn containers(publication: &Publication, is_block: bool) -> Vec<String> {
    let scope = &publication.scope;
    let whole = match scope {
        Scope::Container { container, .. } => Some(container.as_str()),
        _ if is_block && scope.has_members() => None,
        _ => scope.sandbox(),
    };
    let whole = whole.map(str::to_owned);
    publication.members.iter().cloned().chain(whole).collect()
}

async fn remove_empty(path: PathBuf) -> Result<()> {
    let shown = path.display().to_string();
    proof::look("the mount root", move || durable::remove_empty(&path))
        .await?
        .map_err(|e| {
            Error::new(
                Kind::Internal,
                format!("cannot remove {shown}; nothing in it was touched"),
            )
            .with_source(e)
        })
}
