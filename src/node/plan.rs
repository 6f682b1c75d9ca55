// SPDX-License-Identifier: Apache-2.0
//! What to do next for one volume. Pure: record in, step out.

use super::{Phase, VolumeRecord};
use crate::model::Scope;

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the record changes.
    Idle,
    /// NodeStageVolume for the publication of this scope.
    Stage(Scope),
    /// NodePublishVolume.
    Publish(Scope),
    /// Once every member's exit is proven: NodeUnpublishVolume.
    Unpublish(Scope),
    /// The scope ended before anything was published: its entry goes.
    Drop(Scope),
    /// NodeUnstageVolume.
    Unstage,
}

/// Decides the next step.
///
/// Kept here: I3, no unstage while a publication remains, in doubt or not; I6,
/// one scope at a time; and that an effect in doubt is repeated or negated
/// before anything else begins.
pub fn next(record: &VolumeRecord) -> Step {
    for publication in &record.publications {
        if publication.ending.is_some() {
            let scope = publication.scope.clone();
            return match publication.phase {
                Phase::Absent => Step::Drop(scope),
                Phase::Doing | Phase::Done | Phase::Undoing => Step::Unpublish(scope),
            };
        }
    }
    // From here on no scope is ending.
    if let Some(begun) = record
        .publications
        .iter()
        .find(|p| p.phase != Phase::Absent)
    {
        return match begun.phase {
            Phase::Doing => Step::Publish(begun.scope.clone()),
            Phase::Undoing => Step::Unpublish(begun.scope.clone()),
            Phase::Done | Phase::Absent => Step::Idle,
        };
    }
    // From here on nothing is published.
    let Some(wanted) = record.publications.first() else {
        return match record.staging.phase {
            Phase::Absent => Step::Idle,
            Phase::Doing | Phase::Done | Phase::Undoing => Step::Unstage,
        };
    };
    let scope = wanted.scope.clone();
    let same_request = record.staging.request.as_ref() == Some(&wanted.request);
    match record.staging.phase {
        Phase::Absent => Step::Stage(scope),
        Phase::Doing if same_request => Step::Stage(scope),
        Phase::Done if same_request => Step::Publish(scope),
        Phase::Doing | Phase::Done | Phase::Undoing => Step::Unstage,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::tests::{publication, record, usage},
        *,
    };
    use proptest::prelude::*;

    fn staged(mut record: VolumeRecord, phase: Phase, generation: u64) -> VolumeRecord {
        record.staging.phase = phase;
        record.staging.request = Some(usage(generation));
        record
    }

    #[test]
    fn a_volume_is_staged_before_it_is_published() {
        let one = record(vec![publication("s1", 1, Phase::Absent)]);
        let scope = one.publications[0].scope.clone();
        assert_eq!(next(&one), Step::Stage(scope.clone()));
        assert_eq!(
            next(&staged(one.clone(), Phase::Doing, 1)),
            Step::Stage(scope.clone())
        );
        assert_eq!(next(&staged(one, Phase::Done, 1)), Step::Publish(scope));
    }

    #[test]
    fn a_staging_of_an_older_generation_is_undone_first() {
        let one = record(vec![publication("s1", 2, Phase::Absent)]);
        for phase in [Phase::Doing, Phase::Done, Phase::Undoing] {
            assert_eq!(next(&staged(one.clone(), phase, 1)), Step::Unstage);
        }
    }

    #[test]
    fn once_an_unstage_was_begun_the_next_user_stages_again() {
        let one = record(vec![publication("s1", 1, Phase::Absent)]);
        assert_eq!(next(&staged(one, Phase::Undoing, 1)), Step::Unstage);
    }

    #[test]
    fn a_second_scope_waits_until_the_first_is_gone() {
        let two = record(vec![
            publication("s1", 1, Phase::Done),
            publication("s2", 1, Phase::Absent),
        ]);
        assert_eq!(next(&staged(two, Phase::Done, 1)), Step::Idle);
    }

    #[test]
    fn a_scope_that_ended_before_it_was_published_is_dropped_without_a_call() {
        let mut one = record(vec![publication("s1", 1, Phase::Absent)]);
        one.publications[0].ending = Some("revoked".into());
        let scope = one.publications[0].scope.clone();
        assert_eq!(next(&one), Step::Drop(scope));
    }

    #[test]
    fn a_publish_in_doubt_whose_scope_ended_is_negated() {
        let mut one = record(vec![publication("s1", 1, Phase::Doing)]);
        one.publications[0].ending = Some("sandbox stopped".into());
        let scope = one.publications[0].scope.clone();
        assert_eq!(next(&staged(one, Phase::Done, 1)), Step::Unpublish(scope));
    }

    /// What may happen between two steps.
    #[derive(Debug, Clone)]
    enum Op {
        Want(u8, u8),
        End(u8),
        /// Run the next step; the call succeeds.
        Step,
        /// Run the next step; its answer is lost.
        Lost,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (0u8..4, 1u8..4).prop_map(|(s, g)| Op::Want(s, g)),
            2 => (0u8..4).prop_map(Op::End),
            4 => Just(Op::Step),
            1 => Just(Op::Lost),
        ]
    }

    /// The world behind the driver, and the record beside it.
    #[derive(Default)]
    struct World {
        staged: bool,
        published: std::collections::BTreeSet<Scope>,
    }

    fn run(record: &mut VolumeRecord, world: &mut World, answered: bool) -> bool {
        let step = next(record);
        match &step {
            Step::Idle => return false,
            Step::Stage(scope) => {
                record.staging.request = record.publication(scope).map(|p| p.request.clone());
                world.staged = true;
                record.staging.phase = if answered { Phase::Done } else { Phase::Doing };
            }
            Step::Publish(scope) => {
                assert!(world.staged, "published without staging");
                assert_eq!(
                    record.staging.request.as_ref(),
                    record.publication(scope).map(|p| &p.request),
                    "published on the staging of another request"
                );
                world.published.insert(scope.clone());
                assert!(world.published.len() <= 1, "two scopes at once");
                let phase = if answered { Phase::Done } else { Phase::Doing };
                record.publication_mut(scope).unwrap().phase = phase;
            }
            Step::Unpublish(scope) => {
                assert!(record.publication(scope).unwrap().ending.is_some());
                world.published.remove(scope);
                if answered {
                    record.publications.retain(|p| p.scope != *scope);
                } else {
                    record.publication_mut(scope).unwrap().phase = Phase::Undoing;
                }
            }
            Step::Drop(scope) => {
                assert!(!world.published.contains(scope), "dropped while published");
                record.publications.retain(|p| p.scope != *scope);
            }
            Step::Unstage => {
                assert!(world.published.is_empty(), "unstaged while published");
                world.staged = false;
                record.staging.phase = if answered {
                    Phase::Absent
                } else {
                    Phase::Undoing
                };
            }
        }
        true
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_order_and_ends_released(ops in proptest::collection::vec(op(), 0..60)) {
            let mut record = record(vec![]);
            let mut world = World::default();
            for op in ops {
                match op {
                    Op::Want(sandbox, generation) => {
                        let wanted = publication(&sandbox.to_string(), generation.into(), Phase::Absent);
                        if record.publication(&wanted.scope).is_none() {
                            record.publications.push(wanted);
                        }
                    }
                    Op::End(sandbox) => {
                        let sandbox = sandbox.to_string();
                        for p in &mut record.publications {
                            if p.scope.sandbox() == sandbox {
                                p.ending = Some("ended".into());
                            }
                        }
                    }
                    Op::Step => { run(&mut record, &mut world, true); }
                    Op::Lost => { run(&mut record, &mut world, false); }
                }
            }
            for p in &mut record.publications {
                p.ending = Some("over".into());
            }
            let mut steps = 0;
            while run(&mut record, &mut world, true) {
                steps += 1;
                prop_assert!(steps < 100, "it does not converge");
            }
            prop_assert!(record.is_released());
            prop_assert!(!world.staged && world.published.is_empty());
        }
    }
}
