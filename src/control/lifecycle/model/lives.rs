// SPDX-License-Identifier: Apache-2.0
//! Random lives of an actor against a small simulated driver and node: verbs,
//! refusals, lost answers and crashes in any order. The simulated peers hold the
//! invariants: they panic where a real one would lose data.

mod driver;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use self::driver::World;
use super::{
    super::*,
    records::{actor, volume},
};
use crate::{
    control::record::{Placement, decode, encode},
    error::Kind,
    model::{Audience, Generation},
};

const NODES: [&str; 2] = ["node-a", "node-b"];

#[derive(Debug, Clone)]
enum Op {
    Resume(usize),
    Suspend,
    Delete,
    /// Lets a volume grow by so much.
    Expand(usize, u8),
    /// The driver's listing says something else than the records.
    Reconcile(usize),
    /// Takes one of the planned steps.
    Step(usize, Fate),
    /// The actor's pod on a node comes, with whatever grant is current, or goes.
    PodComes,
    PodGoes,
    /// The clock moves on.
    Wait(u8),
    /// The process dies and comes back with what was recorded.
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    /// The effect happens, the answer is lost.
    AnswerLost,
    /// Nothing happens, and nobody can tell.
    NeverArrived,
    Refused,
    /// Something was missing, and nothing was sent.
    NotSent,
    /// The effect happens, the process dies before it records that.
    DiesAfter,
    /// The process dies between the intent and the effect.
    DiesBefore,
    /// A verb comes while the step is under way.
    VerbMeanwhile(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let fate = prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::NeverArrived),
        1 => Just(Fate::Refused),
        1 => Just(Fate::NotSent),
        1 => Just(Fate::DiesAfter),
        1 => Just(Fate::DiesBefore),
        1 => any::<bool>().prop_map(Fate::VerbMeanwhile),
    ];
    let op = prop_oneof![
        3 => (0..2usize).prop_map(Op::Resume),
        2 => Just(Op::Suspend),
        1 => Just(Op::Delete),
        12 => (0..4usize, fate).prop_map(|(n, f)| Op::Step(n, f)),
        1 => (1..=2usize, 1..4u8).prop_map(|(n, by)| Op::Expand(n, by)),
        1 => (1..=2usize).prop_map(Op::Reconcile),
        2 => Just(Op::PodComes),
        2 => Just(Op::PodGoes),
        4 => any::<u8>().prop_map(Op::Wait),
        1 => Just(Op::Crash),
    ];
    proptest::collection::vec(op, 0..80)
}

struct Sim {
    state: State,
    /// What the store holds.
    durable: BTreeMap<String, Vec<u8>>,
    world: World,
    now: Timestamp,
    seen: BTreeMap<VolumeUid, (Generation, Generation)>,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

impl Sim {
    fn new(attaches: bool, offline: bool, policy: ReclaimPolicy, first_consumer: bool) -> Self {
        let actor = actor();
        let volumes = [
            volume(1, policy, first_consumer),
            volume(2, ReclaimPolicy::Delete, false),
        ];
        let mut sim = Self {
            state: State {
                actor: Some(actor),
                volumes: volumes.into_iter().map(|v| (v.uid.clone(), v)).collect(),
                attachments: BTreeMap::new(),
            },
            durable: BTreeMap::new(),
            world: World {
                attaches,
                offline,
                ..World::default()
            },
            now: Timestamp::UNIX_EPOCH,
            seen: BTreeMap::new(),
        };
        sim.commit();
        sim
    }

    /// Writes the state as the store would hold it, and checks I6: generations
    /// and revocations only grow.
    fn commit(&mut self) {
        self.durable.clear();
        if let Some(actor) = &self.state.actor {
            self.durable.insert("actor".into(), encode(actor).unwrap());
        }
        for (uid, volume) in &self.state.volumes {
            self.durable
                .insert(format!("volume/{uid}"), encode(volume).unwrap());
            let last = self.seen.entry(uid.clone()).or_default();
            assert!(volume.generation >= last.0 && volume.revoked >= last.1);
            *last = (volume.generation, volume.revoked);
        }
        for ((uid, node), attachment) in &self.state.attachments {
            self.durable.insert(
                format!("attachment/{uid}/{node}"),
                encode(attachment).unwrap(),
            );
        }
    }

    fn crash(&mut self) {
        let mut state = State::default();
        for (key, bytes) in &self.durable {
            if key == "actor" {
                state.actor = Some(decode(key, bytes).unwrap());
            } else if key.starts_with("volume/") {
                let volume: VolumeRecord = decode(key, bytes).unwrap();
                state.volumes.insert(volume.uid.clone(), volume);
            } else {
                let found: AttachmentRecord = decode(key, bytes).unwrap();
                state
                    .attachments
                    .insert((found.volume.clone(), found.node.clone()), found);
            }
        }
        restarted(&mut state);
        self.state = state;
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Resume(n) => {
                let placement = Placement {
                    node: node(NODES[*n]),
                    audience: Audience::Pod {
                        namespace: "agents".parse().unwrap(),
                        pod: None,
                    },
                    not_after: None,
                    container: None,
                    mounts: Vec::new(),
                    devices: Vec::new(),
                };
                let _ = verb::resume(&mut self.state, placement);
                self.commit();
            }
            Op::Suspend => self.suspend(),
            Op::Delete => self.delete(),
            Op::Expand(n, by) => {
                let uid: VolumeUid = format!("v{n}").parse().unwrap();
                let has = self.state.volumes.get(&uid).map_or(1, |v| v.capacity_bytes);
                let _ = verb::expand(&mut self.state, &uid, has + u64::from(*by));
                self.commit();
            }
            Op::Reconcile(n) => self.reconcile(&format!("v{n}").parse().unwrap()),
            Op::PodComes => self.pod_comes(),
            Op::PodGoes => self.world.published.clear(),
            Op::Wait(seconds) => self.now += SignedDuration::from_secs((*seconds).into()),
            Op::Crash => self.crash(),
            Op::Step(n, fate) => {
                let steps = plan(&self.state, self.now).steps;
                if !steps.is_empty() {
                    let step = steps[n % steps.len()].clone();
                    self.step(&step, *fate);
                }
            }
        }
        self.now += SignedDuration::from_millis(1);
    }

    fn suspend(&mut self) {
        let _ = verb::suspend(&mut self.state, self.now);
        self.commit();
    }

    fn delete(&mut self) {
        let resumed = self.phase() == Some(ActorPhase::Resumed);
        let asked = verb::delete(&mut self.state, self.now);
        assert!(!(resumed && asked.is_ok()), "a resumed actor was deleted");
        self.commit();
    }

    /// Everything is attached again, or detached again, though it was well.
    fn reconcile(&mut self, uid: &VolumeUid) {
        let at: Vec<_> = self.state.attachments.keys().cloned().collect();
        for key in at.iter().filter(|(volume, _)| volume == uid) {
            verb::attach_again(&mut self.state, key);
        }
        let volume = self.state.volumes.get(uid);
        let from = volume.and_then(|v| v.detached_from.first().cloned());
        if let Some(node_id) = from
            && !at.iter().any(|(volume, _)| volume == uid)
        {
            verb::detach_again(&mut self.state, uid, &node_id);
        }
        self.commit();
    }

    fn phase(&self) -> Option<ActorPhase> {
        self.state.actor.as_ref().map(|a| a.phase)
    }

    /// A node publishes what the current grant says, unless it was revoked.
    fn pod_comes(&mut self) {
        let Some(actor) = &self.state.actor else {
            return;
        };
        if actor.phase != ActorPhase::Resumed {
            return;
        }
        let node = actor.placement.clone().unwrap().node;
        for volume in self.state.volumes.values() {
            let at = (volume.volume_id.clone(), node.clone());
            assert!(self.world.volumes.values().any(|v| v.0 == at.0));
            let revoked = self.world.revoked.get(&at).copied().unwrap_or_default();
            assert!(volume.generation > revoked, "a current grant is revoked");
            let attached = (at.0.clone(), format!("id-of-{node}"));
            assert!(!self.world.attaches || self.world.attached.contains(&attached));
            self.world.written.insert(at.0.clone());
            self.world.published.insert(at, volume.generation);
        }
    }

    fn step(&mut self, step: &Step, fate: Fate) {
        begin(&mut self.state, step);
        self.commit();
        // The step carries the request from the records of this moment, as the
        // engine does.
        let before = self.state.clone();
        if fate == Fate::DiesBefore {
            return self.crash();
        }
        let outcome = match fate {
            Fate::NeverArrived => Outcome::failed("gone", Kind::Unavailable, Certainty::InDoubt),
            Fate::NotSent => Outcome::failed("no secret", Kind::Unavailable, Certainty::NotDone),
            Fate::Refused => Outcome::failed("no", self.refusal(&before, step), Certainty::Final),
            _ => self.effect(&before, step),
        };
        let outcome = match fate {
            Fate::AnswerLost => Outcome::failed("late", Kind::DeadlineExceeded, Certainty::InDoubt),
            Fate::DiesAfter => return self.crash(),
            Fate::VerbMeanwhile(true) => {
                self.suspend();
                outcome
            }
            Fate::VerbMeanwhile(false) => {
                self.delete();
                outcome
            }
            _ => outcome,
        };
        let doubt = matches!(&outcome, Outcome::Failed(f) if f.certainty == Certainty::InDoubt);
        let at = Moment {
            now: self.now,
            jitter: 0.5,
            pace: Pace::default(),
        };
        let answered = match &outcome {
            Outcome::Failed(failure) => failure.certainty == Certainty::Final,
            _ => true,
        };
        if let Step::Expand { volume } = step
            && answered
        {
            self.world.growing.remove(&before.volumes[volume].volume_id);
        }
        finish(&mut self.state, step, outcome, &at);
        self.commit();
        // What is in doubt is visible wherever the step still stands.
        if doubt && !step.rpc().is_empty() && plan_holds(&self.state, step) {
            let trouble = self.state.trouble(step).expect("a failure is shown");
            assert_eq!(trouble.in_doubt, step.rpc());
        }
    }

    /// Everything works and the pod is gone: the actor must come to rest.
    fn calm_down(&mut self) {
        self.world.published.clear();
        self.come_to_rest();
    }

    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            self.now += SignedDuration::from_secs(130);
            let waits_for_a_pod = |step: &Step| match step {
                Step::ExpandNode { volume, node } => {
                    let id = self.state.volumes[volume].volume_id.clone();
                    !self.world.published.contains_key(&(id, node.clone()))
                }
                _ => false,
            };
            let steps = plan(&self.state, self.now).steps;
            let Some(step) = steps.into_iter().find(|s| !waits_for_a_pod(s)) else {
                return;
            };
            self.step(&step, Fate::Done);
        }
        panic!("it does not come to rest: {:?}", self.state);
    }

    /// What was not refused has grown, in the driver and on the node.
    fn check_sizes(&self) {
        for volume in self.state.volumes.values() {
            let size = self.world.sizes.get(&volume.volume_id);
            match (&volume.expansion, size) {
                (None, Some(size)) => {
                    assert_eq!(*size, (volume.capacity_bytes, volume.capacity_bytes));
                }
                (Some(expansion), _) => {
                    let refused = |t: &Trouble| t.next_try.is_none();
                    assert!(expansion.offline || expansion.trouble.as_ref().is_some_and(refused));
                }
                (None, None) => {}
            }
        }
    }
}

/// Whether the step is still what leads on, now or later.
fn plan_holds(state: &State, step: &Step) -> bool {
    let far = Timestamp::MAX - SignedDuration::from_hours(24);
    plan(state, far).steps.contains(step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_life_keeps_the_invariants_and_leaks_nothing(
        attaches in any::<bool>(),
        offline in any::<bool>(),
        retain in any::<bool>(),
        first_consumer in any::<bool>(),
        once_more in any::<bool>(),
        ops in ops(),
    ) {
        let policy = if retain { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete };
        let mut sim = Sim::new(attaches, offline, policy, first_consumer);
        for op in &ops {
            sim.run(op);
        }
        // However it went, a suspend brings it to rest: nothing is attached.
        sim.suspend();
        sim.calm_down();
        prop_assert!(sim.state.attachments.is_empty());
        prop_assert!(sim.world.attached.is_empty());
        let phase = sim.phase();
        prop_assert!(matches!(phase, Some(ActorPhase::Suspended) | None), "{phase:?}");
        // It can always be resumed again.
        if phase.is_some() && once_more {
            sim.run(&Op::Resume(0));
            sim.calm_down();
            prop_assert_eq!(sim.phase(), Some(ActorPhase::Resumed));
            sim.pod_comes();
            sim.come_to_rest();
            sim.check_sizes();
            sim.suspend();
            sim.calm_down();
        }
        // And deleted: nothing is left but what is to be retained.
        sim.delete();
        sim.calm_down();
        prop_assert_eq!(sim.phase(), None);
        prop_assert!(sim.world.attached.is_empty());
        let kept: BTreeSet<_> = sim.state.volumes.values().map(|v| v.volume_id.clone()).collect();
        let there: BTreeSet<_> = sim.world.volumes.values().map(|v| v.0.clone()).collect();
        prop_assert_eq!(&kept, &there);
        prop_assert!(retain || kept.is_empty());
        prop_assert!(sim.world.revoked.keys().all(|k| kept.contains(&k.0)));
    }
}

#[test]
fn a_create_that_was_never_answered_is_looked_for_even_after_a_no() {
    let mut sim = Sim::new(false, false, ReclaimPolicy::Delete, false);
    sim.run(&Op::Step(0, Fate::Done));
    sim.run(&Op::Step(0, Fate::AnswerLost));
    sim.run(&Op::Wait(1));
    sim.run(&Op::Step(0, Fate::Refused));
    assert!(!sim.world.volumes.is_empty());
    sim.delete();
    sim.calm_down();
    assert_eq!(sim.phase(), None);
    assert!(sim.world.volumes.is_empty());
}
