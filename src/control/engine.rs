// SPDX-License-Identifier: Apache-2.0
//! Takes the steps: one task per actor that has any to take, its volumes in
//! parallel. Nothing here hangs on a caller: a task ends when its actor has come
//! to rest, and a restart begins again from the records.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    Control,
    adopt::Adoption,
    cell::{Cell, Inner},
    effect,
    lifecycle::{self, Moment, Outcome, State, Step},
    record::Trouble,
};
use crate::{
    error::Result,
    host::crash::{self, CrashPoint},
    model::{ActorRef, VolumeUid},
};

/// How often a node is asked to expand what was not published there yet.
const ASK_LATER: Duration = Duration::from_secs(2);

impl Control {
    /// Changes the actor's records, all or nothing, and sets off what follows.
    pub(super) async fn change<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        change: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        self.change_with(cell, &[], change).await
    }

    /// The same, where the change may take in volumes that nobody owns.
    pub(super) async fn change_with<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        found: &[Adoption],
        change: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let mut inner = cell.lock().await?;
        if let Some(untold) = inner.untold.take() {
            self.follow(cell, &untold, &inner.state, &untold, &inner.state);
        }
        let mut next = inner.state.clone();
        let answer = change(&mut next)?;
        if next != inner.state {
            log_difference(cell, &inner.state, &next);
            let before = inner.state.clone();
            let taken_in = found.iter().map(Adoption::record).collect();
            // Counted are also volumes that come in and those that go out.
            let mut all_before = before.clone();
            let adopted = found.iter().map(Adoption::volume);
            let adopted = adopted.filter(|v| next.volumes.contains_key(&v.uid));
            all_before
                .volumes
                .extend(adopted.map(|v| (v.uid.clone(), v.clone())));
            let all_after = next.clone();
            cell.commit(&mut inner, next, taken_in).await?;
            self.follow(cell, &before, &inner.state, &all_before, &all_after);
        }
        self.drive(cell, &mut inner);
        Ok(answer)
    }

    /// What hangs on the records of an actor besides its steps.
    /// `all_before` and `all_after` have the volumes that come in or go out, too.
    pub(super) fn follow(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        before: &State,
        after: &State,
        all_before: &State,
        all_after: &State,
    ) {
        self.counts.follow(all_before, all_after);
        self.hint_untold(all_before, all_after);
        for (actor, volume) in self.limits.follow(before, after) {
            self.wake(actor, volume);
        }
        // The name of a volume without an actor may be another actor's by now.
        if cell.alone.is_none() {
            self.renew_grant(&cell.name, after);
            if let Some(template) = self.rollouts.follow(before, after) {
                self.go_on_with(template);
            }
            self.watchers.mark(&cell.name);
        }
    }

    /// Lets a volume that waits for room on a node try again at once.
    fn wake(self: &Arc<Self>, actor: ActorRef, volume: VolumeUid) {
        let control = self.clone();
        self.tasks.spawn(async move {
            let stop = control.stop.clone();
            let woken = async {
                let cell = control.cell(&actor).await?;
                let again = |state: &mut State| {
                    lifecycle::try_at_once(state, &volume);
                    Ok(())
                };
                control.change(&cell, again).await
            };
            if let Some(Err(error)) = stop.run_until_cancelled(woken).await {
                tracing::warn!(actor = %actor, error = %error.full_message(), "a volume that waits for room was not woken");
            }
        });
    }

    /// Sees to it that a task drives the actor.
    pub(super) fn drive(self: &Arc<Self>, cell: &Arc<Cell>, inner: &mut Inner) {
        if inner.driving {
            cell.kick.notify_one();
        } else if !inner.gone && !self.stop.is_cancelled() {
            inner.driving = true;
            let (control, cell) = (self.clone(), cell.clone());
            self.tasks.spawn(async move {
                let mut running = JoinSet::new();
                let stop = control.stop.clone();
                stop.run_until_cancelled(control.drive_until_rest(cell, &mut running))
                    .await;
                running.shutdown().await;
            });
        }
    }

    async fn drive_until_rest(self: Arc<Self>, cell: Arc<Cell>, running: &mut JoinSet<VolumeUid>) {
        cell.busy().clear();
        let mut failures = 0;
        loop {
            let pause = match self.take_steps(&cell, running).await {
                Ok(Rest::Over) => return,
                Ok(Rest::Until(pause)) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    failures += 1;
                    tracing::error!(actor = %cell.name, error = %error.full_message(), "cannot read the records of an actor");
                    Some(self.pause(failures))
                }
            };
            let sleep = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = running.join_next() => match done {
                    Ok(volume) => {
                        cell.busy().remove(&volume);
                    }
                    Err(error) => {
                        // A step that panicked: which one is not known, so all
                        // are let go and planned again from the records.
                        tracing::error!(actor = %cell.name, %error, "a step broke off");
                        running.shutdown().await;
                        cell.busy().clear();
                    }
                },
                () = cell.kick.notified() => {}
                () = sleep => {}
            }
        }
    }

    async fn take_steps(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        running: &mut JoinSet<VolumeUid>,
    ) -> Result<Rest> {
        let mut inner = cell.lock().await?;
        let now = Timestamp::now();
        let mut plan = lifecycle::plan(&inner.state, now);
        let ask_later = &inner.ask_later;
        plan.steps.retain(|step| match step {
            Step::ExpandNode { volume, .. } => {
                let later = ask_later.get(volume).filter(|at| **at > now);
                if let Some(at) = later {
                    plan.wake = Some(plan.wake.map_or(*at, |w| w.min(*at)));
                }
                later.is_none()
            }
            _ => true,
        });
        let (steps, at_rest) = {
            let busy = cell.busy();
            plan.steps.retain(|s| !busy.contains(s.volume()));
            (plan.steps, busy.is_empty())
        };
        if steps.is_empty() && at_rest && plan.wake.is_none() {
            inner.driving = false;
            if let Some(uid) = &cell.alone {
                inner.gone = true;
                self.alone().remove(uid);
                cell.announce();
            } else {
                self.cells.rests(cell);
            }
            return Ok(Rest::Over);
        }
        for step in steps {
            cell.busy().insert(step.volume().clone());
            let (control, cell) = (self.clone(), cell.clone());
            running.spawn(async move {
                control.take(&cell, &step).await;
                step.volume().clone()
            });
        }
        let pause = plan.wake.map(|at| {
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            left + Duration::from_millis(1)
        });
        Ok(Rest::Until(pause))
    }

    /// Intent, effect, commit.
    async fn take(self: &Arc<Self>, cell: &Arc<Cell>, step: &Step) {
        if let Err(refused) = effect::admit(self, cell, step).await {
            return self.record_outcome(cell, step, refused).await;
        }
        let begun = self
            .change(cell, |state| {
                // A verb may have come between the plan and here.
                let due = lifecycle::plan(state, Timestamp::now()).steps;
                if !due.contains(step) {
                    return Ok(None);
                }
                lifecycle::begin(state, step);
                Ok(Some(state.clone()))
            })
            .await;
        let at = match begun {
            Ok(Some(at)) => at,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(actor = %cell.name, error = %error.full_message(), "cannot record a step");
                tokio::time::sleep(self.pause(1)).await;
                return;
            }
        };
        let points = crash_points(step);
        hit(points, 0);
        let outcome = effect::carry_out(self, cell, &at, step).await;
        hit(points, 1);
        if outcome == Outcome::NotPublished {
            let later = Timestamp::now() + ASK_LATER;
            if let Ok(mut inner) = cell.lock().await {
                inner.ask_later.insert(step.volume().clone(), later);
            }
        }
        self.record_outcome(cell, step, outcome).await;
        hit(points, 2);
    }

    pub(super) fn pause(&self, failures: u32) -> Duration {
        self.settings.pace.pause(failures, fastrand::f64())
    }

    async fn record_outcome(self: &Arc<Self>, cell: &Arc<Cell>, step: &Step, outcome: Outcome) {
        if let Outcome::Failed(failure) = &outcome {
            tracing::warn!(actor = %cell.name, error = %failure.message, certainty = ?failure.certainty, "a step failed");
        }
        let mut failures = 0;
        loop {
            let done = self
                .change(cell, |state| {
                    let at = Moment {
                        now: Timestamp::now(),
                        jitter: fastrand::f64(),
                        pace: self.settings.pace,
                    };
                    lifecycle::finish(state, step, outcome.clone(), &at);
                    Ok(())
                })
                .await;
            let Err(error) = done else {
                return;
            };
            failures += 1;
            tracing::error!(actor = %cell.name, error = %error.full_message(), "cannot record what came of a step");
            tokio::time::sleep(self.pause(failures)).await;
        }
    }
}

enum Rest {
    /// Nothing is left to do.
    Over,
    /// Something is under way, or due after this time.
    Until(Option<Duration>),
}

fn log_difference(cell: &Cell, before: &State, after: &State) {
    let phase = |s: &State| s.actor.as_ref().map(|a| a.phase.as_str());
    if phase(before) != phase(after) {
        let phase = phase(after).unwrap_or("Deleted");
        tracing::info!(actor = %cell.name, phase, "actor");
    }
    for (uid, volume) in &after.volumes {
        let was = before.volumes.get(uid).map(|v| v.phase);
        if was != Some(volume.phase) {
            let phase = volume.phase.as_str();
            tracing::info!(actor = %cell.name, volume = %uid, name = %volume.name, phase, "volume");
        }
    }
}

/// The trouble in words: the message, and when it is tried again.
pub(super) fn describe(trouble: &Trouble) -> String {
    match trouble.next_try {
        Some(_) => format!("{} (failed tries: {})", trouble.message, trouble.attempts),
        None => trouble.message.clone(),
    }
}

/// The crash points of a step's call: intended, answered, recorded.
fn crash_points(step: &Step) -> Option<[CrashPoint; 3]> {
    use CrashPoint as Point;
    match step {
        Step::Create { .. } => Some([
            Point::CreateIntended,
            Point::CreateAnswered,
            Point::CreateRecorded,
        ]),
        Step::Attach { .. } => Some([
            Point::ControllerPublishIntended,
            Point::ControllerPublishAnswered,
            Point::ControllerPublishRecorded,
        ]),
        Step::Revoke { .. } => Some([
            Point::RevokeIntended,
            Point::RevokeAnswered,
            Point::RevokeRecorded,
        ]),
        Step::Expand { .. } => Some([
            Point::ExpandIntended,
            Point::ExpandAnswered,
            Point::ExpandRecorded,
        ]),
        Step::ExpandNode { .. } => Some([
            Point::NodeExpandIntended,
            Point::NodeExpandAnswered,
            Point::NodeExpandRecorded,
        ]),
        Step::Detach { .. } => Some([
            Point::ControllerUnpublishIntended,
            Point::ControllerUnpublishAnswered,
            Point::ControllerUnpublishRecorded,
        ]),
        Step::Delete { .. } => Some([
            Point::DeleteIntended,
            Point::DeleteAnswered,
            Point::DeleteRecorded,
        ]),
        Step::Prepare { .. }
        | Step::Locate { .. }
        | Step::AwaitRelease { .. }
        | Step::DetachAgain { .. } => None,
    }
}

fn hit(points: Option<[CrashPoint; 3]>, which: usize) {
    if let Some(points) = points {
        crash::hit(points[which]);
    }
}
