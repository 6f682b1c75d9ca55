// SPDX-License-Identifier: Apache-2.0
//! What to do next for one volume. Pure: record in, step out.

use std::collections::HashSet;

use super::{Phase, Publication, VolumeRecord};
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
    /// NodeExpandVolume at the publication of this scope.
    Expand(Scope),
}

/// The steps that wait for a time of their own, and are passed over: they must
/// not keep others from theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// Scopes whose release waits for somebody.
    pub unpublish: HashSet<Scope>,
    /// The unstaging waits for somebody.
    pub unstage: bool,
    /// The expansion failed a short while ago.
    pub expand: bool,
}

/// Decides the next step.
///
/// Kept here: I3, no unstage while a publication remains, in doubt or not; I6,
/// one scope at a time where the access mode has one writer, and only scopes of
/// one and the same request together where it has more; and that an effect in
/// doubt is repeated or negated before anything else of its scope begins.
pub fn next(record: &VolumeRecord, passed: &Passed) -> Step {
    for publication in &record.publications {
        let scope = publication.scope.clone();
        if publication.ending.is_some() && publication.phase == Phase::Absent {
            return Step::Drop(scope);
        }
        if must_go(publication) && !passed.unpublish.contains(&scope) {
            return Step::Unpublish(scope);
        }
    }
    let in_use = record.publications.iter().any(|p| p.phase != Phase::Absent);
    if let Some(wanted) = record.publications.iter().find(|p| may_begin(record, p)) {
        let scope = wanted.scope.clone();
        let staging = &record.staging;
        let same_request = staging.request.as_ref() == Some(&wanted.request);
        // What others use cannot be made anew under them.
        let fit = same_request && (in_use || !staging.stale);
        match staging.phase {
            Phase::Absent => return Step::Stage(scope),
            Phase::Doing if fit => return Step::Stage(scope),
            Phase::Done if fit => return Step::Publish(scope),
            Phase::Doing | Phase::Done | Phase::Undoing if in_use || passed.unstage => {}
            Phase::Doing | Phase::Done | Phase::Undoing => return Step::Unstage,
        }
    } else if record.publications.is_empty()
        && record.staging.phase != Phase::Absent
        && !passed.unstage
    {
        return Step::Unstage;
    }
    let live = record.publications.iter().find(|p| p.is_live());
    if let Some(live) = live
        && record.expand.is_some()
        && !passed.expand
    {
        return Step::Expand(live.scope.clone());
    }
    Step::Idle
}

/// Whether something is published, maybe, that is not to be.
fn must_go(publication: &Publication) -> bool {
    match publication.phase {
        Phase::Absent => false,
        // Once an unpublish was begun it is brought to its end.
        Phase::Undoing => true,
        Phase::Doing => publication.ending.is_some(),
        Phase::Done => publication.ending.is_some() || publication.corrupt.is_some(),
    }
}

/// Whether this scope's publication is to be made, and may be beside the others.
fn may_begin(record: &VolumeRecord, wanted: &Publication) -> bool {
    wanted.ending.is_none()
        && matches!(wanted.phase, Phase::Absent | Phase::Doing)
        && record
            .publications
            .iter()
            .filter(|p| p.scope != wanted.scope && p.phase != Phase::Absent)
            .all(|p| wanted.request.access_mode.is_shared() && p.request == wanted.request)
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::tests::{publication, record, usage},
        *,
    };
    use crate::model::{AccessMode, Generation};
    use proptest::prelude::*;

    fn now(record: &VolumeRecord) -> Step {
        next(record, &Passed::default())
    }

    fn shared(mut record: VolumeRecord) -> VolumeRecord {
        let requests = record.publications.iter_mut().map(|p| &mut p.request);
        for request in requests.chain(record.staging.request.as_mut()) {
            request.access_mode = AccessMode::MultiNodeMultiWriter;
        }
        record
    }

    fn staged(mut record: VolumeRecord, phase: Phase, generation: u64) -> VolumeRecord {
        record.staging.phase = phase;
        record.staging.request = Some(usage(generation));
        record
    }

    #[test]
    fn a_volume_is_staged_before_it_is_published() {
        let one = record(vec![publication("s1", 1, Phase::Absent)]);
        let scope = one.publications[0].scope.clone();
        assert_eq!(now(&one), Step::Stage(scope.clone()));
        assert_eq!(
            now(&staged(one.clone(), Phase::Doing, 1)),
            Step::Stage(scope.clone())
        );
        assert_eq!(now(&staged(one, Phase::Done, 1)), Step::Publish(scope));
    }

    #[test]
    fn a_staging_of_an_older_generation_is_undone_first() {
        let one = record(vec![publication("s1", 2, Phase::Absent)]);
        for phase in [Phase::Doing, Phase::Done, Phase::Undoing] {
            assert_eq!(now(&staged(one.clone(), phase, 1)), Step::Unstage);
        }
    }

    #[test]
    fn once_an_unstage_was_begun_the_next_user_stages_again() {
        let one = record(vec![publication("s1", 1, Phase::Absent)]);
        assert_eq!(now(&staged(one, Phase::Undoing, 1)), Step::Unstage);
    }

    #[test]
    fn a_second_scope_waits_until_the_first_is_gone() {
        let two = record(vec![
            publication("s1", 1, Phase::Done),
            publication("s2", 1, Phase::Absent),
        ]);
        assert_eq!(now(&staged(two, Phase::Done, 1)), Step::Idle);
    }

    #[test]
    fn a_scope_that_ended_before_it_was_published_is_dropped_without_a_call() {
        let mut one = record(vec![publication("s1", 1, Phase::Absent)]);
        one.publications[0].ending = Some("revoked".into());
        let scope = one.publications[0].scope.clone();
        assert_eq!(now(&one), Step::Drop(scope));
    }

    #[test]
    fn a_publish_in_doubt_whose_scope_ended_is_negated() {
        let mut one = record(vec![publication("s1", 1, Phase::Doing)]);
        one.publications[0].ending = Some("sandbox stopped".into());
        let scope = one.publications[0].scope.clone();
        assert_eq!(now(&staged(one, Phase::Done, 1)), Step::Unpublish(scope));
    }

    #[test]
    fn scopes_of_one_request_share_a_volume_whose_mode_allows_it() {
        let two = staged(
            record(vec![
                publication("s1", 1, Phase::Done),
                publication("s2", 1, Phase::Absent),
            ]),
            Phase::Done,
            1,
        );
        let second = two.publications[1].scope.clone();
        assert_eq!(now(&two), Step::Idle);
        assert_eq!(now(&shared(two.clone())), Step::Publish(second));
        // One of another request waits all the same.
        let mut other = shared(two);
        other.publications[1].request.generation = Generation(2);
        assert_eq!(now(&other), Step::Idle);
    }

    #[test]
    fn a_release_that_waits_keeps_no_other_scope_from_its_own() {
        let mut three = shared(staged(
            record(vec![
                publication("s1", 1, Phase::Done),
                publication("s2", 1, Phase::Done),
                publication("s3", 1, Phase::Absent),
            ]),
            Phase::Done,
            1,
        ));
        for p in &mut three.publications[..2] {
            p.ending = Some("over".into());
        }
        let scopes: Vec<_> = three.publications.iter().map(|p| p.scope.clone()).collect();
        let mut passed = Passed::default();
        assert_eq!(next(&three, &passed), Step::Unpublish(scopes[0].clone()));
        passed.unpublish.insert(scopes[0].clone());
        assert_eq!(next(&three, &passed), Step::Unpublish(scopes[1].clone()));
        passed.unpublish.insert(scopes[1].clone());
        assert_eq!(next(&three, &passed), Step::Publish(scopes[2].clone()));
    }

    #[test]
    fn a_corrupted_publication_is_undone_down_to_its_staging_and_made_anew() {
        let mut one = staged(
            record(vec![publication("s1", 1, Phase::Done)]),
            Phase::Done,
            1,
        );
        let scope = one.publications[0].scope.clone();
        one.publications[0].corrupt = Some("gone".into());
        assert_eq!(now(&one), Step::Unpublish(scope.clone()));
        one.publications[0].undone();
        one.staging.stale = true;
        assert_eq!(now(&one), Step::Unstage);
        one.staging = Default::default();
        assert_eq!(now(&one), Step::Stage(scope));
    }

    #[test]
    fn a_stale_staging_that_others_use_stays() {
        let mut two = shared(staged(
            record(vec![
                publication("s1", 1, Phase::Done),
                publication("s2", 1, Phase::Absent),
            ]),
            Phase::Done,
            1,
        ));
        two.staging.stale = true;
        let second = two.publications[1].scope.clone();
        assert_eq!(now(&two), Step::Publish(second));
    }

    #[test]
    fn an_expansion_waits_for_a_publication() {
        let mut one = staged(
            record(vec![publication("s1", 1, Phase::Absent)]),
            Phase::Done,
            1,
        );
        one.expand = Some(2);
        let scope = one.publications[0].scope.clone();
        assert_eq!(now(&one), Step::Publish(scope.clone()));
        one.publications[0].phase = Phase::Done;
        assert_eq!(now(&one), Step::Expand(scope));
        let passed = Passed {
            expand: true,
            ..Passed::default()
        };
        assert_eq!(next(&one, &passed), Step::Idle);
    }

    /// What may happen between two steps.
    #[derive(Debug, Clone)]
    enum Op {
        Want(u8, u8),
        End(u8),
        /// The file system behind a publication dies.
        Corrupt(u8),
        /// What was mounted at the staging path is gone.
        LoseStaging,
        Expand,
        /// The release of a scope begins or ceases to wait.
        Hold(u8),
        /// Run the next step; the call succeeds.
        Step,
        /// Run the next step; its answer is lost.
        Lost,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0u8..4, 1u8..4).prop_map(|(s, g)| Op::Want(s, g)),
            2 => (0u8..4).prop_map(Op::End),
            1 => (0u8..4).prop_map(Op::Corrupt),
            1 => Just(Op::LoseStaging),
            1 => Just(Op::Expand),
            1 => (0u8..4).prop_map(Op::Hold),
            6 => Just(Op::Step),
            1 => Just(Op::Lost),
        ]
    }

    /// The world behind the driver, and the record beside it.
    #[derive(Default)]
    struct World {
        staged: bool,
        /// The staging was lost, which no record tells.
        lost: bool,
        published: std::collections::BTreeSet<Scope>,
    }

    fn run(record: &mut VolumeRecord, world: &mut World, passed: &Passed, answered: bool) -> bool {
        match next(record, passed) {
            Step::Idle => return false,
            Step::Stage(scope) => {
                record.staging.request = record.publication(&scope).map(|p| p.request.clone());
                world.staged = true;
                world.lost = false;
                record.staging.phase = if answered { Phase::Done } else { Phase::Doing };
            }
            Step::Publish(scope) if world.lost => {
                assert_eq!(record.publication(&scope).unwrap().ending, None);
                record.staging.phase = Phase::Doing;
            }
            Step::Publish(scope) => {
                assert!(world.staged, "published without staging");
                let wanted = record.publication(&scope).unwrap().clone();
                assert_eq!(
                    record.staging.request.as_ref(),
                    Some(&wanted.request),
                    "published on the staging of another request"
                );
                world.published.insert(scope.clone());
                if !wanted.request.access_mode.is_shared() {
                    assert!(world.published.len() <= 1, "two scopes at once");
                }
                for other in &world.published {
                    let other = record.publication(other).unwrap();
                    assert_eq!(other.request, wanted.request, "two requests at once");
                }
                let phase = if answered { Phase::Done } else { Phase::Doing };
                record.publication_mut(&scope).unwrap().phase = phase;
            }
            Step::Unpublish(scope) => {
                assert!(!passed.unpublish.contains(&scope), "it was to wait");
                let found = record.publication_mut(&scope).unwrap();
                assert!(
                    found.ending.is_some()
                        || found.corrupt.is_some()
                        || found.phase == Phase::Undoing,
                    "undone while it is wanted and of use"
                );
                world.published.remove(&scope);
                if !answered {
                    found.phase = Phase::Undoing;
                } else if found.ending.is_some() {
                    record.publications.retain(|p| p.scope != scope);
                } else {
                    found.undone();
                    record.staging.stale = true;
                }
            }
            Step::Drop(scope) => {
                assert!(!world.published.contains(&scope), "dropped while published");
                record.publications.retain(|p| p.scope != scope);
            }
            Step::Unstage => {
                assert!(world.published.is_empty(), "unstaged while published");
                world.staged = false;
                world.lost = false;
                if answered {
                    record.staging = Default::default();
                } else {
                    record.staging.phase = Phase::Undoing;
                }
            }
            Step::Expand(scope) => {
                assert!(record.publication(&scope).unwrap().is_live());
                assert!(world.published.contains(&scope), "expanded where it is not");
                if answered {
                    record.expand = None;
                }
            }
        }
        true
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_order_and_ends_released(
            many in any::<bool>(),
            ops in proptest::collection::vec(op(), 0..80),
        ) {
            let mut record = record(vec![]);
            let mut world = World::default();
            let mut passed = Passed::default();
            let scope_of = |sandbox: u8| publication(&sandbox.to_string(), 1, Phase::Absent).scope;
            for op in ops {
                match op {
                    Op::Want(sandbox, generation) => {
                        let mut wanted =
                            publication(&sandbox.to_string(), generation.into(), Phase::Absent);
                        if many {
                            wanted.request.access_mode = AccessMode::SingleNodeMultiWriter;
                        }
                        if record.publication(&wanted.scope).is_none() {
                            record.publications.push(wanted);
                        }
                    }
                    Op::End(sandbox) => {
                        if let Some(p) = record.publication_mut(&scope_of(sandbox)) {
                            p.ending = Some("ended".into());
                        }
                    }
                    Op::Corrupt(sandbox) => {
                        if let Some(p) = record.publication_mut(&scope_of(sandbox))
                            && p.phase == Phase::Done
                        {
                            p.corrupt = Some("gone".into());
                        }
                    }
                    Op::LoseStaging => world.lost = world.staged,
                    Op::Expand => record.expand = Some(1),
                    Op::Hold(sandbox) => {
                        let scope = scope_of(sandbox);
                        if !passed.unpublish.remove(&scope) {
                            passed.unpublish.insert(scope);
                        }
                    }
                    Op::Step => { run(&mut record, &mut world, &passed, true); }
                    Op::Lost => { run(&mut record, &mut world, &passed, false); }
                }
            }
            // Whatever was begun comes to rest, and nobody that may run waits.
            let nobody = Passed::default();
            let mut steps = 0;
            while run(&mut record, &mut world, &nobody, true) {
                steps += 1;
                prop_assert!(steps < 100, "it does not come to rest");
            }
            let waiting = record.publications.iter().filter(|p| p.phase != Phase::Done).count();
            if record.publications.iter().all(|p| p.request == record.publications[0].request) && many {
                prop_assert_eq!(waiting, 0);
            }
            for p in &mut record.publications {
                p.ending = Some("over".into());
            }
            while run(&mut record, &mut world, &nobody, true) {
                steps += 1;
                prop_assert!(steps < 200, "it does not converge");
            }
            prop_assert!(record.is_released());
            prop_assert!(!world.staged && world.published.is_empty());
        }
    }
}
