// SPDX-License-Identifier: Apache-2.0
//! What single verbs do; long histories are in the model.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    super::{Moment, Outcome, Step, begin, finish, plan},
    *,
};
use crate::{
    control::record::{CreateRequest, End, RequestId, VerbName, VolumeRecord},
    csi::Accessibility,
    error::Kind,
    model::{AccessMode, Audience, Generation, ReclaimPolicy, VolumeMode},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn volume(name: &str, introduced: u64) -> VolumeRecord {
    let uid: VolumeUid = format!("{name}-{introduced}").parse().unwrap();
    VolumeRecord {
        actor: "agents/a".parse().unwrap(),
        actor_uid: "u".parse().unwrap(),
        name: name.parse().unwrap(),
        introduced,
        unbound: false,
        released: false,
        class: "pool".into(),
        driver: "d.example".parse().unwrap(),
        create: CreateRequest {
            name: uid.csi_name(),
            required_bytes: 10,
            access_mode: AccessMode::SingleNodeSingleWriter,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            mount_flags: Vec::new(),
            mount_group: String::new(),
            parameters: Opaque::default(),
            accessibility: Accessibility::default(),
        },
        wanted_access_mode: AccessMode::SingleNodeSingleWriter,
        allowed_topologies: Vec::new(),
        secret_refs: Default::default(),
        prepared: true,
        reclaim_policy: ReclaimPolicy::Delete,
        first_consumer: false,
        phase: VolumePhase::Ready,
        unsure: false,
        volume_id: format!("id-{name}-{introduced}"),
        capacity_bytes: 10,
        volume_context: Opaque::default(),
        accessible_topology: Vec::new(),
        expansion: None,
        detached_from: BTreeSet::new(),
        leftover: None,
        generation: Generation(3),
        revoked: Generation(3),
        nodes: BTreeSet::new(),
        trouble: None,
        created_at: NOW,
        uid,
    }
}

fn state(volumes: &[VolumeRecord]) -> State {
    State {
        actor: Some(ActorRecord {
            actor: "agents/a".parse().unwrap(),
            uid: "u".parse().unwrap(),
            template: "t".parse().unwrap(),
            template_revision: 1,
            phase: ActorPhase::Suspended,
            placement: None,
            deletion: None,
            last_end: None,
            by: None,
            requests: Vec::new(),
            created_at: NOW,
        }),
        volumes: volumes.iter().map(|v| (v.uid.clone(), v.clone())).collect(),
        ..State::default()
    }
}

fn placement() -> Placement {
    Placement {
        node: "node-a".parse().unwrap(),
        audience: Audience::Pod {
            namespace: "agents".parse().unwrap(),
            pod: None,
        },
        not_after: None,
        container: None,
        mounts: Vec::new(),
        devices: Vec::new(),
    }
}

/// A revision with these volumes, of this size.
fn revision(number: u64, volumes: &[(&str, u64)], bytes: u64) -> Revision {
    let wanted = volumes.iter().map(|(name, introduced)| Wanted {
        name: name.parse().unwrap(),
        introduced: *introduced,
        bytes,
        reclaim_policy: None,
        new: Ok(Box::new(VolumeRecord {
            uid: format!("new-{name}-{introduced}").parse().unwrap(),
            phase: VolumePhase::Intent,
            volume_id: String::new(),
            prepared: false,
            ..volume(name, *introduced)
        })),
    });
    Revision {
        number,
        volumes: wanted.collect(),
    }
}

fn bound(state: &State) -> Vec<String> {
    state.bound().map(|v| v.uid.to_string()).collect()
}

fn call(id: &str, verb: VerbName, arguments: &str) -> Call {
    Call {
        verb,
        id: Some(id.parse::<RequestId>().unwrap()),
        arguments: arguments.into(),
        now: NOW,
    }
}

fn phase(state: &State) -> ActorPhase {
    state.actor.as_ref().unwrap().phase
}

#[test]
fn a_removed_volume_is_kept_out_of_grants_and_comes_back_with_its_data() {
    let mut state = state(&[volume("a", 1), volume("b", 1)]);
    revise(&mut state, &revision(2, &[("a", 1)], 10)).unwrap();
    assert_eq!(bound(&state), ["a-1"]);
    resume(&mut state, placement()).unwrap();
    let attached: Vec<_> = state.attachments.keys().map(|k| k.0.to_string()).collect();
    assert_eq!(attached, ["a-1"]);
    let kept = &state.volumes[&"b-1".parse().unwrap()];
    assert_eq!((kept.phase, kept.generation.0), (VolumePhase::Ready, 3));
    suspend(&mut state, NOW).unwrap();
    state.attachments.clear();
    settle(&mut state);
    revise(&mut state, &revision(3, &[("a", 1), ("b", 1)], 10)).unwrap();
    assert_eq!(bound(&state), ["a-1", "b-1"]);
}

#[test]
fn a_name_that_comes_in_again_is_another_volume() {
    let mut state = state(&[volume("a", 1)]);
    revise(&mut state, &revision(3, &[("a", 3)], 10)).unwrap();
    assert_eq!(bound(&state), ["new-a-3"]);
    assert!(state.volumes[&"a-1".parse().unwrap()].unbound);
}

#[test]
fn what_is_retired_goes_by_its_policy_and_is_never_bound_again() {
    let mut kept = volume("b", 1);
    kept.reclaim_policy = ReclaimPolicy::Retain;
    let mut state = state(&[volume("a", 1), kept, volume("c", 1)]);
    revise(&mut state, &revision(2, &[("c", 1)], 10)).unwrap();
    retire(&mut state, |_, introduced| introduced == 1);
    let phase = |name: &str| state.volumes[&name.parse().unwrap()].phase;
    assert_eq!(phase("a-1"), VolumePhase::Deleting);
    assert_eq!(phase("b-1"), VolumePhase::Retained);
    // It is bound: whatever the template says, it stays.
    assert_eq!(phase("c-1"), VolumePhase::Ready);
    revise(&mut state, &revision(3, &[("a", 1), ("c", 1)], 10)).unwrap();
    assert_eq!(bound(&state), ["c-1", "new-a-1"]);
}

#[test]
fn an_actor_never_moves_back_and_its_volumes_never_shrink() {
    let mut state = state(&[volume("a", 1)]);
    revise(&mut state, &revision(3, &[("a", 1)], 20)).unwrap();
    let wanted = |state: &State| {
        let volume = &state.volumes[&"a-1".parse().unwrap()];
        volume.expansion.as_ref().unwrap().wanted_bytes
    };
    assert_eq!(wanted(&state), 20);
    revise(&mut state, &revision(2, &[], 5)).unwrap();
    assert_eq!(bound(&state), ["a-1"]);
    revise(&mut state, &revision(4, &[("a", 1)], 15)).unwrap();
    assert_eq!(wanted(&state), 20);
    assert_eq!(state.actor.unwrap().template_revision, 4);
}

#[test]
fn only_a_suspended_actor_is_updated() {
    let mut state = state(&[volume("a", 1)]);
    resume(&mut state, placement()).unwrap();
    let to = revision(2, &[("a", 1)], 10);
    assert_eq!(update(&mut state, &to).unwrap_err().kind(), Kind::Aborted);
    state.actor.as_mut().unwrap().phase = ActorPhase::Resumed;
    let refused = update(&mut state, &to).unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
}

#[test]
fn a_crash_is_remembered_and_may_be_told_again() {
    let mut state = state(&[volume("a", 1)]);
    let refused = crash(&mut state, NOW).unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    resume(&mut state, placement()).unwrap();
    suspend(&mut state, NOW).unwrap();
    let how = |state: &State| state.actor.as_ref().unwrap().last_end.unwrap().how;
    assert_eq!(how(&state), End::Suspended);
    crash(&mut state, NOW).unwrap();
    assert_eq!(how(&state), End::Crashed);
    state.attachments.clear();
    settle(&mut state);
    assert_eq!(phase(&state), ActorPhase::Suspended);
    let before = state.clone();
    crash(&mut state, Timestamp::now()).unwrap();
    assert_eq!(state, before);
}

#[test]
fn an_adopted_volume_goes_on_with_its_generation() {
    let mut found = volume("old", 7);
    found.phase = VolumePhase::Retained;
    found.actor = "agents/gone".parse().unwrap();
    let mut unmade = volume("a", 1);
    unmade.phase = VolumePhase::Intent;
    let fresh = state(&[unmade]);
    let a = "a".parse().unwrap();
    let mut state = fresh.clone();
    adopt(&mut state, &a, &found).unwrap();
    adopt(&mut state, &a, &found).unwrap();
    assert_eq!(bound(&state), ["old-7"]);
    resume(&mut state, placement()).unwrap();
    let adopted = &state.volumes[&found.uid];
    assert_eq!((adopted.generation.0, adopted.introduced), (4, 1));
    assert_eq!(adopted.actor.to_string(), "agents/a");
    // Its place is taken now.
    let mut other = found.clone();
    other.uid = "other".parse().unwrap();
    assert!(adopt(&mut state, &a, &other).is_err());

    let refused = |change: fn(&mut VolumeRecord), says: &str| {
        let mut found = found.clone();
        change(&mut found);
        let error = adopt(&mut fresh.clone(), &a, &found).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.full_message().contains(says), "{error:?}");
    };
    refused(|v| v.phase = VolumePhase::Ready, "not retained");
    refused(
        |v| v.actor = "other/x".parse().unwrap(),
        "namespace is other",
    );
    refused(|v| v.class = "fast".into(), "class is fast");
    refused(
        |v| v.driver = "e.example".parse().unwrap(),
        "driver is e.example",
    );
    refused(
        |v| v.create.volume_mode = VolumeMode::Block,
        "mode is Block",
    );
    refused(
        |v| v.wanted_access_mode = AccessMode::MultiNodeReaderOnly,
        "access mode",
    );
    refused(
        |v| (v.capacity_bytes, v.create.required_bytes) = (9, 9),
        "9 bytes",
    );
}

#[test]
fn a_retained_volume_is_deleted_without_an_actor() {
    let mut retained = volume("a", 1);
    retained.phase = VolumePhase::Retained;
    let uid = retained.uid.clone();
    let mut alone = State {
        volumes: [(uid.clone(), retained)].into(),
        ..State::default()
    };
    release(&mut alone, &uid).unwrap();
    release(&mut alone, &uid).unwrap();
    let steps = crate::control::lifecycle::plan(&alone, NOW).steps;
    assert!(matches!(
        &steps[..],
        [crate::control::lifecycle::Step::Delete { .. }]
    ));
    let mut owned = state(&[volume("a", 1)]);
    let refused = release(&mut owned, &uid).unwrap_err();
    assert!(refused.full_message().contains("agents/a"), "{refused:?}");
}

#[test]
fn a_request_is_carried_out_once() {
    let mut state = state(&[volume("a", 1)]);
    let first = call("r1", VerbName::Resume, "x");
    let go = |state: &mut State| resume(state, placement());
    assert!(perform(&mut state, &first, go).unwrap());
    suspend(&mut state, NOW).unwrap();
    let before = state.clone();
    assert!(!perform(&mut state, &first, go).unwrap());
    assert_eq!(state, before);
    for other in [
        call("r1", VerbName::Resume, "y"),
        call("r1", VerbName::Suspend, "x"),
    ] {
        let refused = perform(&mut state, &other, go).unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidInput);
    }
    // The memory has an end.
    for n in 0..100 {
        let next = call(&format!("s{n}"), VerbName::Suspend, "");
        perform(&mut state, &next, |s| suspend(s, NOW)).unwrap();
    }
    assert_eq!(state.actor.unwrap().requests.len(), 16);
}

#[test]
fn a_verb_in_the_way_names_the_one_under_way() {
    let mut state = state(&[volume("a", 1)]);
    let first = call("r1", VerbName::Resume, "");
    perform(&mut state, &first, |s| resume(s, placement())).unwrap();
    let refused = delete(&mut state, NOW).unwrap_err();
    assert_eq!(refused.kind(), Kind::Aborted);
    assert!(refused.full_message().contains("resume (request r1)"));
    let end = call("c1", VerbName::Crash, "");
    perform(&mut state, &end, |s| crash(s, NOW)).unwrap();
    let refused = resume(&mut state, placement()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Aborted);
    assert!(refused.full_message().contains("crash (request c1)"));
}

#[test]
fn what_a_driver_left_attached_is_detached_before_the_next_attachment() {
    let left = volume("vol", 1);
    let uid = left.uid.clone();
    let mut state = state(&[left]);
    detach_again(&mut state, &uid, "id-of-node-a");
    resume(&mut state, placement()).unwrap();
    let steps = |s: &State| plan(s, NOW).steps;
    let again = Step::DetachAgain {
        volume: uid.clone(),
    };
    assert_eq!(steps(&state), std::slice::from_ref(&again));
    begin(&mut state, &again);
    let at = Moment {
        now: NOW,
        jitter: 0.0,
        pace: Default::default(),
    };
    finish(&mut state, &again, Outcome::Done, &at);
    let next = steps(&state);
    assert!(matches!(&next[..], [Step::Locate { .. }]), "{next:?}");
}
