// SPDX-License-Identifier: Apache-2.0
//! The task of one volume: takes the next step of the plan until there is none.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Phase, Publication,
    plan::{self, Step},
    proof,
    record::Usage,
    volume::{Failure, Hold, State, Volume},
};
use crate::{
    csi::{Driver, NodePublish, NodeStage, VolumeCapability},
    error::{Error, Kind, Result},
    host::{durable, mountinfo::Identity},
    model::Scope,
    secret::Secrets,
};

/// The first repetition of a failed step comes after this long.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// And none after more than this.
const LAST_RETRY: Duration = Duration::from_secs(15);
/// How often a scope whose end is not proven is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a step came to.
enum Done {
    /// Done; on to the next.
    Step,
    /// Somebody still uses the volume; look again later.
    Held(String),
}

impl Volume {
    /// Runs until nothing is left to do and nothing is published.
    pub(super) async fn work(self: Arc<Self>) {
        loop {
            let (step, rest) = {
                let mut state = self.state.lock().await;
                self.end_memberless(&mut state);
                let step = plan::next(&state.record);
                if step == Step::Idle && state.record.is_released() {
                    state.running = false;
                    return;
                }
                let rest = self.rest(&state, &step);
                (step, rest)
            };
            match rest {
                // Nothing to do for now: until somebody wakes the task.
                Some(None) => self.wake.notified().await,
                Some(Some(until)) => {
                    let _ = tokio::time::timeout_at(until.into(), self.wake.notified()).await;
                }
                None => {
                    let outcome = self.take(&step).await;
                    self.note(&step, outcome).await;
                }
            }
        }
    }

    /// Whether to rest before the step, and until when (none: until woken).
    fn rest(&self, state: &State, step: &Step) -> Option<Option<Instant>> {
        let now = Instant::now();
        if let Some(failure) = &state.failure
            && *step != Step::Idle
            && failure.retry_at > now
        {
            return Some(Some(failure.retry_at));
        }
        if let Some(hold) = &state.held_by
            && matches!(step, Step::Unpublish(_) | Step::Unstage)
            && hold.look_at > now
        {
            return Some(Some(hold.look_at));
        }
        if *step != Step::Idle {
            return None;
        }
        let grace = state.memberless.values().min();
        Some(grace.map(|since| *since + self.shared.member_grace))
    }

    /// Ends the container scopes whose grace time without a member has passed.
    fn end_memberless(&self, state: &mut State) {
        let grace = self.shared.member_grace;
        let State {
            record, memberless, ..
        } = state;
        memberless.retain(|scope, since| {
            let Some(found) = record.publication_mut(scope) else {
                return false;
            };
            if !found.members.is_empty() || found.ending.is_some() {
                return false;
            }
            // While it is being published, whoever asked may come back for it.
            if found.phase == Phase::Done && since.elapsed() >= grace {
                found.ending = Some(format!("no container of it for {grace:?}"));
                return false;
            }
            if found.phase != Phase::Done {
                *since = Instant::now();
            }
            true
        });
    }

    async fn note(&self, step: &Step, outcome: Result<Done>) {
        let mut state = self.state.lock().await;
        match outcome {
            Ok(Done::Step) => {
                if let Some(failure) = state.failure.take() {
                    tracing::info!(volume = %self.key, attempts = failure.attempts, "recovered: {step:?}");
                }
                state.held_by = None;
            }
            Ok(Done::Held(by)) => {
                if state.held_by.as_ref().is_none_or(|h| h.by != by) {
                    tracing::info!(volume = %self.key, "release waits: {by}");
                }
                state.failure = None;
                let look_at = Instant::now() + LOOK_AGAIN;
                state.held_by = Some(Hold { by, look_at });
            }
            Err(error) => {
                let attempts = state.failure.as_ref().map_or(0, |f| f.attempts) + 1;
                let wait = FIRST_RETRY
                    .saturating_mul(1 << (attempts - 1).min(10))
                    .min(LAST_RETRY)
                    .mul_f64(0.75 + fastrand::f64() / 2.0);
                let message = error.full_message();
                tracing::warn!(volume = %self.key, attempts, ?wait, "{step:?} failed: {message}");
                let now = Instant::now();
                state.failure = Some(Failure {
                    attempts,
                    kind: error.kind(),
                    message,
                    last: now,
                    retry_at: now + wait,
                });
            }
        }
        let failing = state.failure.as_ref().map(|f| f.kind);
        drop(state);
        self.shared.metrics.step(step.name(), failing);
        self.changed.send_modify(|n| *n += 1);
    }

    async fn take(self: &Arc<Self>, step: &Step) -> Result<Done> {
        let driver = || self.shared.drivers.get(&self.key.driver);
        match step {
            Step::Idle => Ok(Done::Step),
            Step::Stage(scope) => self.stage(&*driver()?, scope).await,
            Step::Publish(scope) => self.publish(&*driver()?, scope).await,
            Step::Unpublish(scope) => self.unpublish(&*driver()?, scope).await,
            Step::Drop(scope) => {
                self.commit(|r| r.publications.retain(|p| p.scope != *scope))
                    .await;
                self.settled().await;
                Ok(Done::Step)
            }
            Step::Unstage => self.unstage(&*driver()?).await,
        }
    }

    async fn stage(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let Some(usage) = self
            .intend(scope, |record, publication| {
                record.staging.phase = Phase::Doing;
                record.staging.request = Some(publication.request.clone());
            })
            .await?
        else {
            return Ok(Done::Step);
        };
        let staging_path = self.shared.layout.staging(&self.key);
        make_dir(staging_path.clone()).await?;
        let Usage {
            volume_context,
            publish_context,
            ..
        } = usage.clone();
        driver
            .node_stage(&NodeStage {
                volume_id: self.key.volume_id.clone(),
                publish_context,
                staging_path,
                capability: capability(&usage),
                volume_context,
                secrets: Secrets::default(),
            })
            .await?;
        self.commit(|record| record.staging.phase = Phase::Done)
            .await;
        Ok(Done::Step)
    }

    async fn publish(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let Some(usage) = self
            .intend(scope, |record, _| {
                if let Some(p) = record.publication_mut(scope) {
                    p.phase = Phase::Doing;
                }
            })
            .await?
        else {
            return Ok(Done::Step);
        };
        let read_only = {
            let state = self.state.lock().await;
            state.record.publication(scope).is_some_and(|p| p.read_only)
        };
        make_dir(self.shared.layout.publications(&self.key)).await?;
        let target = self.shared.layout.target(&self.key, scope);
        let Usage {
            volume_context,
            publish_context,
            ..
        } = usage.clone();
        driver
            .node_publish(&NodePublish {
                volume_id: self.key.volume_id.clone(),
                publish_context,
                staging_path: self.shared.layout.staging(&self.key),
                target_path: target.clone(),
                capability: capability(&usage),
                read_only,
                volume_context,
                secrets: Secrets::default(),
            })
            .await?;
        // The driver's OK alone shows nothing: an empty directory in the
        // volume's place would take the actor's writes (I7).
        let Some(identity) = proof::mounted(target.clone()).await? else {
            return Err(Error::internal(format!(
                "driver {} answered OK to NodePublishVolume, but nothing is mounted at {}: does the node agent see the driver's mounts (propagation)?",
                self.key.driver,
                target.display()
            )));
        };
        self.commit(|record| {
            if let Some(p) = record.publication_mut(scope) {
                p.phase = Phase::Done;
                p.identity = Some(identity.clone());
            }
        })
        .await;
        Ok(Done::Step)
    }

    async fn unpublish(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let target = self.shared.layout.target(&self.key, scope);
        let staging = self.shared.layout.staging(&self.key);
        let found = self.state.lock().await.record.publication(scope).cloned();
        let Some(publication) = found else {
            return Ok(Done::Step);
        };
        if let Some(running) = self.running_member(&publication).await? {
            return Ok(Done::Held(running));
        }
        let identity = match &publication.identity {
            Some(identity) => Some(identity.clone()),
            None => proof::mounted(target.clone()).await?,
        };
        if let Some(identity) = &identity
            && let Some(holder) = self
                .holder(
                    driver,
                    identity,
                    vec![target.clone(), staging],
                    containers(&publication),
                )
                .await?
        {
            return Ok(Done::Held(holder));
        }
        self.intend(scope, |record, _| {
            if let Some(p) = record.publication_mut(scope) {
                p.phase = Phase::Undoing;
                p.identity.clone_from(&identity);
            }
        })
        .await?;
        let said = driver.node_unpublish(&self.key.volume_id, &target).await;
        proof::undone(said, &target).await?;
        if proof::mounted(target.clone()).await?.is_some() {
            return Err(Error::internal(format!(
                "driver {} answered OK to NodeUnpublishVolume, but {} is still mounted",
                self.key.driver,
                target.display()
            )));
        }
        remove_empty_dir(target).await?;
        self.commit(|record| {
            record.publications.retain(|p| p.scope != *scope);
            record.staging.identity.clone_from(&identity);
        })
        .await;
        Ok(Done::Step)
    }

    async fn unstage(&self, driver: &Driver) -> Result<Done> {
        let staging = self.shared.layout.staging(&self.key);
        let identity = self.state.lock().await.record.staging.identity.clone();
        // I2: a copy of the mount that some other namespace took before the
        // release would go on writing; it is named, and the release waits.
        if let Some(identity) = &identity
            && let Some(holder) = self
                .holder(driver, identity, vec![staging.clone()], Vec::new())
                .await?
        {
            return Ok(Done::Held(holder));
        }
        {
            let mut state = self.state.lock().await;
            let mut next = state.record.clone();
            if next.publications.iter().any(|p| p.phase != Phase::Absent) {
                return Ok(Done::Step);
            }
            next.staging.phase = Phase::Undoing;
            self.shared.records.write(&next).await?;
            state.record = next;
        }
        let said = driver.node_unstage(&self.key.volume_id, &staging).await;
        proof::undone(said, &staging).await?;
        if proof::mounted(staging.clone()).await?.is_some() {
            return Err(Error::internal(format!(
                "driver {} answered OK to NodeUnstageVolume, but {} is still mounted",
                self.key.driver,
                staging.display()
            )));
        }
        if let Some(identity) = &identity
            && let Some(holder) = self
                .holder(driver, identity, Vec::new(), Vec::new())
                .await?
        {
            return Ok(Done::Held(holder));
        }
        for dir in [
            staging,
            self.shared.layout.publications(&self.key),
            self.shared.layout.volume_dir(&self.key),
        ] {
            remove_empty_dir(dir).await?;
        }
        self.commit(|record| record.staging = super::Staging::default())
            .await;
        self.settled().await;
        Ok(Done::Step)
    }

    /// A member that the runtime says is running. Those that it no longer runs
    /// are taken off the list.
    async fn running_member(&self, publication: &Publication) -> Result<Option<String>> {
        if publication.members.is_empty() {
            return Ok(None);
        }
        let listing = self.shared.cri.list().await?;
        Ok(publication
            .members
            .iter()
            .find(|id| listing.containers.get(*id).is_some_and(|c| c.running))
            .map(|id| format!("container {id} is running")))
    }

    /// Who has the volume mounted in another namespace, elsewhere than at the
    /// `known` paths: a mount there ends together with ours.
    async fn holder(
        &self,
        driver: &Driver,
        identity: &Identity,
        known: Vec<PathBuf>,
        containers: Vec<String>,
    ) -> Result<Option<String>> {
        let socket = driver.node_socket().map(Path::to_owned);
        let holder = self
            .shared
            .proof
            .holder(identity.clone(), known, containers, socket)
            .await?;
        Ok(holder.map(|h| h.to_string()))
    }

    /// Records the intent of a step for a scope; none if the scope is gone.
    async fn intend(
        &self,
        scope: &Scope,
        change: impl FnOnce(&mut super::VolumeRecord, &Publication),
    ) -> Result<Option<Usage>> {
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        let Some(publication) = next.publication(scope).cloned() else {
            return Ok(None);
        };
        change(&mut next, &publication);
        if next != state.record {
            self.shared.records.write(&next).await?;
            state.record = next;
        }
        Ok(Some(publication.request))
    }

    /// Records what was done. A write that fails leaves the intent on disk,
    /// which is repeated after a restart; the next write carries this one too.
    async fn commit(&self, change: impl FnOnce(&mut super::VolumeRecord)) {
        let mut state = self.state.lock().await;
        change(&mut state.record);
        let record = &state.record;
        if let Err(error) = self.shared.records.write(record).await {
            tracing::error!(volume = %self.key, "{}", error.full_message());
        }
    }

    /// Tells those who wait for a release.
    async fn settled(&self) {
        let mut state = self.state.lock().await;
        if state.record.is_released() {
            state.waited.clear();
            state.memberless.clear();
            tracing::info!(volume = %self.key, "released");
        }
        drop(state);
        self.shared.released.send_modify(|n| *n += 1);
    }
}

impl Step {
    /// The step's name, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stage(_) => "stage",
            Self::Publish(_) => "publish",
            Self::Unpublish(_) => "unpublish",
            Self::Drop(_) => "drop",
            Self::Unstage => "unstage",
        }
    }
}

/// The containers by whose names the processes of the scope are known.
fn containers(publication: &Publication) -> Vec<String> {
    let sandbox = publication.scope.sandbox().to_owned();
    publication
        .members
        .iter()
        .cloned()
        .chain([sandbox])
        .collect()
}

fn capability(usage: &Usage) -> VolumeCapability {
    VolumeCapability {
        access_mode: usage.access_mode,
        volume_mode: usage.volume_mode,
        fs_type: usage.fs_type.clone(),
        mount_flags: usage.mount_flags.clone(),
        mount_group: String::new(),
    }
}

async fn make_dir(path: PathBuf) -> Result<()> {
    let shown = path.display().to_string();
    proof::look("the mount root", move || durable::make_dir(&path))
        .await?
        .map_err(|e| Error::internal(format!("cannot make {shown}")).with_source(e))
}

async fn remove_empty_dir(path: PathBuf) -> Result<()> {
    let shown = path.display().to_string();
    proof::look("the mount root", move || durable::remove_empty_dir(&path))
        .await?
        .map_err(|e| {
            Error::new(
                Kind::Internal,
                format!("cannot remove the directory {shown}; nothing in it was touched"),
            )
            .with_source(e)
        })
}
