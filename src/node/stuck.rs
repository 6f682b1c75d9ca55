// SPDX-License-Identifier: Apache-2.0
//! What has not got on for a while on this node: since when, and why.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    Agent, Phase, Publication, VolumeRecord,
    helper::Probed,
    plan::Step,
    volume::{State, Volume},
};
use crate::{
    error::Result,
    model::{Scope, VolumeKey},
};

/// What takes longer than this is told of.
const LONG: Duration = Duration::from_secs(10);

/// A volume that waits for something.
#[derive(Debug, Clone)]
pub struct Stuck {
    /// The volume.
    pub key: VolumeKey,
    /// What is to be done to it, and what keeps it from being done.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Timestamp,
    on: Instant,
}

impl Begun {
    fn now() -> Self {
        Self {
            at: Timestamp::now(),
            on: Instant::now(),
        }
    }
}

/// What is not done yet, in memory alone.
#[derive(Default)]
pub(super) struct Pending {
    steps: Vec<(Step, Begun)>,
    /// Its file system does not answer.
    mute: Option<Begun>,
}

impl Pending {
    /// The step is begun; it may have been before, and not have come to its end.
    pub(super) fn begun(&mut self, step: &Step) {
        if !self.steps.iter().any(|(s, _)| s == step) {
            self.steps.push((step.clone(), Begun::now()));
        }
    }

    pub(super) fn done(&mut self, step: &Step) {
        self.steps.retain(|(s, _)| s != step);
    }

    /// What the record no longer asks for is not pending any more.
    pub(super) fn forget(&mut self, record: &VolumeRecord) {
        self.steps.retain(|(step, _)| is_asked_for(step, record));
        if !record.publications.iter().any(|p| p.is_live()) {
            self.mute = None;
        }
    }

    /// What came of a look into the volume.
    pub(super) fn probed(&mut self, mute: bool) {
        self.mute = mute.then(|| self.mute.unwrap_or_else(Begun::now));
    }
}

fn is_asked_for(step: &Step, record: &VolumeRecord) -> bool {
    match step {
        Step::Stage(scope) | Step::Publish(scope) | Step::Expand(scope) => record
            .publication(scope)
            .is_some_and(|p| p.ending.is_none()),
        Step::Unpublish(scope) => record.publication(scope).is_some_and(|p| !p.is_live()),
        Step::Unstage => {
            let absent = |p: &Publication| p.phase == Phase::Absent;
            record.staging.phase != Phase::Absent && record.publications.iter().all(absent)
        }
        Step::Drop(_) | Step::Idle => false,
    }
}

impl Volume {
    /// Keeps in mind whether the file system answered.
    pub(super) async fn heard(&self, probed: Result<Probed>) -> Result<Probed> {
        // A look that was not made tells nothing.
        if let Ok(probed) = &probed {
            let mut state = self.state.lock().await;
            state.pending.probed(*probed == Probed::Hangs);
        }
        probed
    }

    async fn stuck(&self) -> Vec<Stuck> {
        let state = self.state.lock().await;
        let long = state.pending.steps.iter();
        let long = long.filter(|(_, begun)| begun.on.elapsed() >= LONG);
        let mut found: Vec<_> = long
            .map(|(step, begun)| Stuck {
                key: self.key.clone(),
                what: describe(&state, step),
                since: begun.at,
            })
            .collect();
        found.extend(state.pending.mute.map(|begun| Stuck {
            key: self.key.clone(),
            what: "its file system does not answer".to_owned(),
            since: begun.at,
        }));
        found
    }
}

fn describe(state: &State, step: &Step) -> String {
    let of = |scope: &Scope| {
        let found = state.record.publication(scope);
        found.map_or(format!(" for {scope}"), |p| {
            format!(" for pod {} ({scope})", p.pod)
        })
    };
    let (whose, hold) = match step {
        Step::Unpublish(scope) => (of(scope), state.held_by.get(&Some(scope.clone()))),
        Step::Unstage => (String::new(), state.held_by.get(&None)),
        Step::Stage(scope) | Step::Publish(scope) | Step::Drop(scope) | Step::Expand(scope) => {
            (of(scope), None)
        }
        Step::Idle => (String::new(), None),
    };
    let failed = state.failure.as_ref().map(|f| {
        let (attempts, message) = (f.attempts, &f.message);
        format!("attempt {attempts} failed: {message}")
    });
    let why = hold
        .map(|h| h.by.clone())
        .or(failed)
        .unwrap_or_else(|| "its driver has not answered yet".to_owned());
    format!("{}{whose} is not done: {why}", step.name())
}

impl Agent {
    /// Every volume that waits for something longer than it should.
    pub async fn stuck(&self) -> Vec<Stuck> {
        let mut found = Vec::new();
        for volume in self.volumes() {
            found.extend(volume.stuck().await);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::tests::{publication, record},
        *,
    };

    #[test]
    fn a_step_that_is_repeated_keeps_its_time_until_it_is_done() {
        let one = record(vec![publication("s1", 1, Phase::Doing)]);
        let step = Step::Publish(one.publications[0].scope.clone());
        let mut pending = Pending::default();
        pending.begun(&step);
        let first = pending.steps[0].1.on;
        std::thread::sleep(Duration::from_millis(2));
        pending.forget(&one);
        pending.begun(&step);
        assert_eq!(pending.steps.len(), 1);
        assert_eq!(pending.steps[0].1.on, first);
        pending.done(&step);
        assert!(pending.steps.is_empty());
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_pending() {
        let mut one = record(vec![publication("s1", 1, Phase::Doing)]);
        let scope = one.publications[0].scope.clone();
        let mut pending = Pending::default();
        pending.begun(&Step::Publish(scope.clone()));
        one.publications[0].ending = Some("over".into());
        pending.forget(&one);
        assert!(pending.steps.is_empty());
        pending.begun(&Step::Unpublish(scope));
        pending.forget(&one);
        assert_eq!(pending.steps.len(), 1);
        pending.forget(&record(vec![]));
        assert!(pending.steps.is_empty());
    }

    #[test]
    fn a_file_system_is_mute_since_the_first_look_without_an_answer() {
        let mut pending = Pending::default();
        pending.probed(true);
        let first = pending.mute.unwrap().on;
        pending.probed(true);
        assert_eq!(pending.mute.unwrap().on, first);
        pending.probed(false);
        assert!(pending.mute.is_none());
    }
}
