// SPDX-License-Identifier: Apache-2.0
//! The task of one volume: takes the next step of the plan until there is none,
//! one CSI call at a time. Each kind of step is in a file of its own.

mod expand;
mod publish;
mod release;
mod stage;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Phase, Publication, VolumeRecord,
    plan::{self, Step},
    proof,
    record::Usage,
    volume::{Failure, Hold, State, Volume},
};
use crate::{
    csi::VolumeCapability,
    error::{Error, Kind, Result},
    host::durable,
    model::Scope,
};

/// How often a scope whose end is not proven is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A request that would get the same answer again waits for this long, unless
/// somebody asks.
const WHEN_ASKED: Duration = Duration::from_secs(600);
/// The same for a mount that is of no use, and in use: each look may cost a
/// process.
const LOOK_AGAIN_AT_FAULT: Duration = Duration::from_secs(10);
/// How often a call whose effect is not to be seen is repeated at once.
const QUICK_REPEATS: u32 = 2;

/// What a step came to.
enum Done {
    /// Done; on to the next.
    Step,
    /// Somebody still uses the volume; look again after this long.
    Held(String, Duration),
}

/// What the task does next.
enum Next {
    Step(Step),
    /// NodeGetVolumeStats at the publication of this scope.
    Stats(Scope),
    /// Nothing, until this time or until somebody wakes the task.
    Rest(Option<Instant>),
    End,
}

impl Volume {
    /// Runs until nothing is left to do and nothing is published.
    pub(super) async fn work(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock().await;
                let next = self.decide(&mut state);
                // These begin with an intent, which takes the rest with it.
                let saves = matches!(next, Next::Step(Step::Unpublish(_) | Step::Unstage));
                if state.unsaved && !saves {
                    self.catch_up(&mut state).await;
                }
                next
            };
            match next {
                Next::Step(step) => {
                    let outcome = self.take(&step).await;
                    self.note(&step, outcome).await;
                }
                Next::Stats(scope) => self.ask_stats(&scope).await,
                Next::Rest(None) => self.wake.notified().await,
                Next::Rest(Some(until)) => {
                    let _ = tokio::time::timeout_at(until.into(), self.wake.notified()).await;
                }
                Next::End => return,
            }
        }
    }

    fn decide(&self, state: &mut State) -> Next {
        let now = Instant::now();
        self.end_memberless(state);
        forget_holds(state);
        state.pending.forget(&state.record);
        let step = plan::next(&state.record, &state.passed(now));
        if step == Step::Idle && state.record.is_released() {
            state.running = false;
            return Next::End;
        }
        if let Some(until) = state.quiet_until {
            if until > now {
                return Next::Rest(Some(until));
            }
            state.quiet_until = None;
        }
        let failed = state.failure.as_ref().map(|f| f.retry_at);
        let rests = match step {
            Step::Idle => true,
            // It has a back-off of its own.
            Step::Expand(_) => false,
            _ => failed.is_some_and(|retry_at| retry_at > now),
        };
        if !rests {
            state.calling = true;
            state.pending.begun(&step);
            return Next::Step(step);
        }
        if let Some(scope) = state.stats.asked_for(&state.record) {
            state.calling = true;
            return Next::Stats(scope);
        }
        let grace = self.shared.member_grace;
        let times = state
            .memberless
            .values()
            .map(|since| *since + grace)
            .chain(state.held_by.values().map(|h| h.look_at))
            .chain(failed.filter(|_| step != Step::Idle))
            .chain(state.expansion.retry_at());
        Next::Rest(times.filter(|at| *at > now).min())
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
        state.calling = false;
        let held_for = match step {
            Step::Unpublish(scope) => Some(Some(scope.clone())),
            Step::Unstage => Some(None),
            _ => None,
        };
        let failed = match outcome {
            Ok(Done::Step) => {
                state.pending.done(step);
                let before = match step {
                    Step::Expand(_) => state.expansion.succeeded(),
                    _ => state.failure.take(),
                };
                if let Some(failure) = before {
                    tracing::info!(volume = %self.key, attempts = failure.attempts, "recovered: {step:?}");
                }
                if let Some(key) = held_for {
                    state.held_by.remove(&key);
                }
                None
            }
            Ok(Done::Held(by, look_again)) => {
                let key = held_for.unwrap_or_default();
                if state.held_by.get(&key).is_none_or(|h| h.by != by) {
                    tracing::info!(volume = %self.key, "release waits: {by}");
                }
                state.failure = None;
                let look_at = Instant::now() + look_again;
                state.held_by.insert(key, Hold { by, look_at });
                None
            }
            Err(error) => {
                let failure = match step {
                    Step::Expand(_) => state.expansion.failed(&error),
                    _ => {
                        let mut failure = Failure::after(state.failure.as_ref(), &error);
                        if is_pointless(step, failure.kind) {
                            failure.retry_at = failure.last + WHEN_ASKED;
                        }
                        state.failure = Some(failure.clone());
                        failure
                    }
                };
                let (attempts, message) = (failure.attempts, &failure.message);
                if failure.kind.is_alarming() {
                    tracing::error!(volume = %self.key, attempts, "{step:?} failed: {message}");
                } else {
                    tracing::warn!(volume = %self.key, attempts, "{step:?} failed: {message}");
                }
                Some(failure.kind)
            }
        };
        drop(state);
        self.shared.metrics.step(step.name(), failed);
        self.changed.send_modify(|n| *n += 1);
    }

    async fn take(self: &Arc<Self>, step: &Step) -> Result<Done> {
        match step {
            Step::Idle => Ok(Done::Step),
            Step::Stage(scope) => {
                self.stage(
                    &*self.shared.driver_in_sight(&self.key.driver).await?,
                    scope,
                )
                .await
            }
            Step::Publish(scope) => {
                self.publish(
                    &*self.shared.driver_in_sight(&self.key.driver).await?,
                    scope,
                )
                .await
            }
            Step::Unpublish(scope) => {
                self.unpublish(
                    &*self.shared.driver_in_sight(&self.key.driver).await?,
                    scope,
                )
                .await
            }
            Step::Drop(scope) => {
                self.commit(|r| r.publications.retain(|p| p.scope != *scope))
                    .await;
                self.settled().await;
                Ok(Done::Step)
            }
            Step::Unstage => {
                self.unstage(&*self.shared.driver_in_sight(&self.key.driver).await?)
                    .await
            }
            Step::Expand(scope) => {
                let driver = self.shared.drivers.get(&self.key.driver)?;
                self.expand_at(&driver, scope).await
            }
        }
    }

    /// The scope's publication as it is recorded.
    async fn publication(&self, scope: &Scope) -> Option<Publication> {
        self.state.lock().await.record.publication(scope).cloned()
    }

    /// Records the intent of a step for a scope; none if the scope is gone.
    async fn intend(
        &self,
        scope: &Scope,
        change: impl FnOnce(&mut VolumeRecord, &Publication),
    ) -> Result<Option<Usage>> {
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        let Some(publication) = next.publication(scope).cloned() else {
            return Ok(None);
        };
        change(&mut next, &publication);
        if next != state.record || state.unsaved {
            self.save(&mut state, next).await?;
        }
        Ok(Some(publication.request))
    }

    /// Records what was done. A write that fails leaves the intent on disk,
    /// which is repeated after a restart; the next write carries this one too.
    async fn commit(&self, change: impl FnOnce(&mut VolumeRecord)) {
        let mut state = self.state.lock().await;
        change(&mut state.record);
        self.catch_up(&mut state).await;
    }

    /// The same without a write of its own where another intent follows: until
    /// then the disk has the intent of what was done. What is said to be
    /// released is so on disk too.
    async fn commit_with_next(&self, change: impl FnOnce(&mut VolumeRecord)) {
        let mut state = self.state.lock().await;
        change(&mut state.record);
        state.unsaved = true;
        if state.record.is_released() {
            self.catch_up(&mut state).await;
        }
    }

    async fn catch_up(&self, state: &mut State) {
        let written = self.shared.records.write(&state.record).await;
        state.unsaved = written.is_err();
        if let Err(error) = written {
            tracing::error!(volume = %self.key, "{}", error.full_message());
        }
    }

    /// Tells those who wait for a release.
    async fn settled(&self) {
        let mut state = self.state.lock().await;
        if state.record.is_released() {
            state.waited.clear();
            state.memberless.clear();
            state.fresh.clear();
            tracing::info!(volume = %self.key, "released");
        }
        drop(state);
        self.shared.released.send_modify(|n| *n += 1);
    }

    /// The driver said OK, and what it promised is not to be seen.
    fn broken_promise(&self, rpc: &'static str, what: &str) -> Error {
        let driver = self.key.driver.as_str();
        self.shared.metrics.broken_promise(driver, rpc);
        Error::internal(format!("driver {driver} answered OK to {rpc}, but {what}"))
    }
}

/// Holds of what is no longer to be released.
fn forget_holds(state: &mut State) {
    let State {
        record, held_by, ..
    } = state;
    held_by.retain(|scope, _| match scope {
        Some(scope) => record
            .publication(scope)
            .is_some_and(|p| !p.is_live() && p.phase != Phase::Absent),
        None => record.staging.phase != Phase::Absent,
    });
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
            Self::Expand(_) => "expand",
        }
    }
}

fn capability(usage: &Usage) -> VolumeCapability {
    VolumeCapability {
        access_mode: usage.access_mode,
        volume_mode: usage.volume_mode,
        fs_type: usage.fs_type.clone(),
        mount_flags: usage.mount_flags.clone(),
        mount_group: usage.mount_group.clone(),
    }
}

async fn make_dir(path: PathBuf) -> Result<()> {
    let shown = path.display().to_string();
    proof::look("the mount root", move || durable::make_dir(&path))
        .await?
        .map_err(|e| Error::internal(format!("cannot make {shown}")).with_source(e))
}

/// Whether the very same request would get the very same answer: on the way
/// forward it waits until somebody asks. The way back is repeated whatever the
/// answer, since nobody else would free what is left.
fn is_pointless(step: &Step, kind: Kind) -> bool {
    matches!(step, Step::Stage(_) | Step::Publish(_))
        && matches!(
            kind,
            Kind::InvalidInput | Kind::AlreadyExists | Kind::Unimplemented
        )
}
