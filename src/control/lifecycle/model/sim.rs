// SPDX-License-Identifier: Apache-2.0
//! The state machine in its world: which events are possible, and what each does.

use std::hash::{Hash, Hasher};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::*,
    bugs::Bug,
    lives,
    op::{Budget, Op},
    world::{Broken, Judged, Life, World},
};
use crate::{
    control::record::{Opaque, Placement},
    csi::Accessibility,
    error::Kind,
    model::{AccessMode, Audience, Generation},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A call that was sent.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    step: Step,
    /// What it asks for, of CreateVolume.
    request: u64,
    /// Whether it happened: a pod that holds a volume is no release.
    happened: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sim {
    pub state: State,
    pub world: World,
    calls: [Option<Call>; 2],
    pub left: Budget,
    pub bug: Option<Bug>,
}

pub fn uid(v: usize) -> VolumeUid {
    format!("v{}", v + 1).parse().unwrap()
}

pub fn node(n: usize) -> NodeName {
    ["node-a", "node-b"][n].parse().unwrap()
}

fn index(name: &str) -> usize {
    usize::from(name.ends_with('b') || name.ends_with('2'))
}

fn placement(n: usize) -> Placement {
    Placement {
        node: node(n),
        audience: Audience::Pod {
            namespace: "agents".parse().unwrap(),
            pod: None,
        },
        container: None,
        mounts: Vec::new(),
        devices: Vec::new(),
    }
}

impl Sim {
    /// An actor that was just created, with so many volumes.
    pub fn new(volumes: usize, attaches: bool, left: Budget, bug: Option<Bug>) -> Self {
        let actor = lives::actor();
        let volumes = (1..=volumes).map(|n| lives::volume(n, ReclaimPolicy::Delete, false));
        let volumes = volumes.map(|v| (v.uid.clone(), v)).collect();
        Self {
            state: State {
                actor: Some(actor),
                volumes,
                ..State::default()
            },
            world: World::new(attaches),
            calls: [None, None],
            left,
            bug,
        }
    }

    /// All events that are possible now.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.state.actor.is_some() {
            ops.extend([Op::Resume(0), Op::Resume(1), Op::Suspend, Op::Crash]);
            ops.push(Op::Delete);
        }
        ops.push(Op::Die);
        for v in 0..2u8 {
            self.ops_of_volume(v, &mut ops);
        }
        for n in 0..2u8 {
            match self.world.nodes[usize::from(n)] {
                Life::Up => ops.push(Op::Cut(n)),
                Life::Cut => ops.extend([Op::Off(n), Op::Back(n)]),
                Life::Off => ops.extend([Op::Fence(n), Op::Back(n)]),
                Life::Fenced => ops.push(Op::Back(n)),
            }
            if self.bug == Some(Bug::FenceUnconfirmed) {
                ops.push(Op::Fence(n));
            }
        }
        ops.retain(|op| op.pay(self.left).is_some());
        ops
    }

    fn ops_of_volume(&self, v: u8, ops: &mut Vec<Op>) {
        let at = usize::from(v);
        match &self.calls[at] {
            Some(call) if call.happened.is_none() => {
                ops.extend([Op::Effect(v), Op::Lose(v)]);
                if matches!(call.step, Step::Create { .. } | Step::Attach { .. }) {
                    ops.push(Op::Refuse(v));
                }
            }
            Some(_) => ops.extend([Op::Answer(v), Op::Lose(v)]),
            None if self.planned(at).is_some() => ops.push(Op::Send(v)),
            None => {}
        }
        for n in 0..2u8 {
            let there = usize::from(n);
            for generation in self.world.may_publish(at, there) {
                ops.push(Op::Pod(v, n, generation as u8));
            }
            let runs = matches!(self.world.nodes[there], Life::Up | Life::Cut);
            if runs && self.world.things[at].held[there] != 0 {
                ops.push(Op::PodEnds(v, n));
            }
            let known = self.state.volumes.get(&uid(at));
            if known.is_some_and(|k| k.detached_from.contains(&format!("id-of-{}", node(there))))
                && known.is_some_and(|k| k.phase == VolumePhase::Ready && k.leftover.is_none())
                && self.state.attachments_of(&uid(at)).next().is_none()
            {
                ops.push(Op::Ghost(v, n));
            }
        }
    }

    /// The step that is due. One to a node that nobody reaches, or that a pod
    /// holds up, changes nothing and is left out.
    fn planned(&self, v: usize) -> Option<Step> {
        // Later than any pause: every retry is due.
        let mut steps = plan(&self.state, NOW + SignedDuration::from_secs(200)).steps;
        if let Some(bug) = self.bug {
            bug.in_plan(&self.state, &mut steps);
        }
        let step = steps.into_iter().find(|s| s.volume() == &uid(v))?;
        let at = match &step {
            Step::Revoke { node, .. } | Step::AwaitRelease { node, .. } => {
                Some(index(node.as_str()))
            }
            _ => None,
        };
        if at.is_some_and(|n| self.world.nodes[n] != Life::Up) {
            return None;
        }
        let waits = matches!(step, Step::AwaitRelease { .. })
            && at.is_some_and(|n| self.world.things[v].held[n] != 0)
            && self.bug != Some(Bug::DetachUnreleased);
        (!waits).then_some(step)
    }

    pub fn apply(&mut self, op: Op) -> Judged {
        self.left = op
            .pay(self.left)
            .expect("only what is possible is asked for");
        let was = self.phase();
        match op {
            Op::Resume(n) => {
                if self.bug == Some(Bug::AttachBeforeDetach) {
                    Bug::end_suspend(&mut self.state);
                }
                let done = verb::resume(&mut self.state, placement(n.into()));
                if done.is_ok() && was == Some(ActorPhase::Suspended) {
                    self.plant(Bug::after_resume);
                }
            }
            Op::Suspend => {
                let _ = verb::suspend(&mut self.state, NOW);
                self.plant(Bug::after_end);
            }
            Op::Crash => {
                let _ = verb::crash(&mut self.state, NOW);
                self.plant(Bug::after_end);
            }
            Op::Delete => {
                let _ = verb::delete(&mut self.state, NOW);
            }
            Op::Send(v) => self.send(v.into()),
            Op::Effect(v) => self.effect(v.into())?,
            Op::Answer(v) => self.answer(v.into()),
            Op::Lose(v) => self.fail(v.into(), Kind::DeadlineExceeded, Certainty::InDoubt),
            Op::Refuse(v) => {
                // Who wants to delete is told that nothing is there only where
                // that is true; else that he may not ask.
                let volume = self.state.volumes.get(&uid(v.into()));
                let deleting = volume.is_some_and(|v| v.phase == VolumePhase::Deleting);
                let there = self.world.things[usize::from(v)].made.is_some();
                let kind = if deleting && there {
                    Kind::PermissionDenied
                } else {
                    Kind::InvalidInput
                };
                self.fail(v.into(), kind, Certainty::Final);
            }
            Op::Pod(v, n, g) => self.world.publish(v.into(), n.into(), g.into())?,
            Op::PodEnds(v, n) => self.world.things[usize::from(v)].held[usize::from(n)] = 0,
            Op::Cut(n) => self.world.nodes[usize::from(n)] = Life::Cut,
            Op::Off(n) => self.world.nodes[usize::from(n)] = Life::Off,
            Op::Fence(n) => {
                self.world.fence(n.into());
                fence(&mut self.state, &node(n.into()));
            }
            Op::Back(n) => self.back(n.into()),
            Op::Die => {
                self.calls = [None, None];
                restarted(&mut self.state);
            }
            Op::Ghost(v, n) => {
                self.world.attach(v.into(), n.into())?;
                let id = format!("id-of-{}", node(n.into()));
                verb::detach_again(&mut self.state, &uid(v.into()), &id);
            }
        }
        if was == Some(ActorPhase::Resuming) && self.phase() == Some(ActorPhase::Resumed) {
            self.grant()?;
        }
        self.check_rest()
    }

    fn plant(&mut self, at: fn(Bug, &mut State)) {
        if let Some(bug) = self.bug {
            at(bug, &mut self.state);
        }
    }

    fn phase(&self) -> Option<ActorPhase> {
        self.state.actor.as_ref().map(|a| a.phase)
    }

    fn grant(&mut self) -> Judged {
        for attachment in self.state.attachments.values() {
            let (v, n) = (
                index(attachment.volume.as_str()),
                index(attachment.node.as_str()),
            );
            self.world.grant(v, n, attachment.generation.0)?;
        }
        Ok(())
    }

    /// A node that returns hears what is over before it publishes. On one that
    /// was off nothing runs; of one that was fenced, every attachment is over.
    fn back(&mut self, n: usize) {
        let life = std::mem::replace(&mut self.world.nodes[n], Life::Up);
        for (v, thing) in self.world.things.iter_mut().enumerate() {
            if life != Life::Cut {
                thing.held[n] = 0;
            }
            if life == Life::Fenced {
                let record = self.state.volumes.get(&uid(v));
                let fenced = self.state.attachments.get(&(uid(v), node(n)));
                let fenced = fenced.filter(|a| a.fenced).map_or(0, |a| a.generation.0);
                let over = record.map_or(u64::MAX, |r| r.revoked.0.max(fenced));
                thing.mark[n] = thing.mark[n].max(over);
            }
        }
    }

    fn send(&mut self, v: usize) {
        let step = self.planned(v).expect("it is planned");
        if !(self.bug == Some(Bug::NoIntent) && matches!(step, Step::Create { .. })) {
            begin(&mut self.state, &step);
        }
        let request = self.state.volumes[&uid(v)].create.required_bytes;
        self.calls[v] = Some(Call {
            step,
            request,
            happened: None,
        });
    }

    fn effect(&mut self, v: usize) -> Judged {
        let Some(call) = &mut self.calls[v] else {
            return Ok(());
        };
        let mut happened = true;
        let record = self.state.volumes.get(&uid(v));
        let at = call.step.attachment().map(|(_, n)| index(n.as_str()));
        let attachment = call.step.attachment();
        let attachment = attachment.and_then(|key| self.state.attachments.get(&key));
        match &call.step {
            Step::Create { .. } => {
                if record.is_none_or(|r| r.phase == VolumePhase::Intent) {
                    return Err(Broken::NoIntent);
                }
                self.world.create(v, call.request)?;
            }
            Step::Attach { .. } => {
                if attachment.is_none_or(|a| !a.sent) {
                    return Err(Broken::NoIntent);
                }
                self.world.attach(v, at.unwrap_or_default())?;
            }
            Step::Revoke { generation, .. } => {
                let mark = &mut self.world.things[v].mark[at.unwrap_or_default()];
                *mark = (*mark).max(generation.0);
            }
            Step::AwaitRelease { .. } => {
                happened = self.world.things[v].held[at.unwrap_or_default()] == 0;
            }
            Step::Detach { .. } => self.world.detach(v, at.unwrap_or_default())?,
            Step::DetachAgain { .. } => {
                let leftover = record.and_then(|r| r.leftover.as_ref());
                let Some(leftover) = leftover.filter(|l| l.sent) else {
                    return Err(Broken::NoIntent);
                };
                self.world.detach(v, index(&leftover.node_id))?;
            }
            Step::Delete { .. } => {
                if self.state.attachments_of(&uid(v)).next().is_some() {
                    return Err(Broken::DeletedInUse);
                }
                self.world.delete(v)?;
            }
            Step::Prepare { .. }
            | Step::Locate { .. }
            | Step::Expand { .. }
            | Step::ExpandNode { .. } => {}
        }
        call.happened = Some(happened);
        Ok(())
    }

    fn answer(&mut self, v: usize) {
        let call = self.calls[v].clone().expect("it was sent");
        let released = call.happened == Some(true) || self.bug == Some(Bug::DetachUnreleased);
        let outcome = match &call.step {
            Step::Prepare { .. } => Outcome::Prepared {
                access_mode: AccessMode::SingleNodeWriter,
                accessibility: Accessibility::default(),
            },
            Step::Create { .. } => Outcome::Created {
                volume_id: format!("id-{}", uid(v)),
                capacity_bytes: 1,
                volume_context: Opaque::default(),
                accessible_topology: Vec::new(),
            },
            Step::Locate { node, .. } => {
                Outcome::Located(self.world.attaches.then(|| format!("id-of-{node}")))
            }
            Step::Attach { .. } => Outcome::Attached(Opaque::default()),
            Step::AwaitRelease { .. } if !released => {
                return self.fail(v, Kind::Unavailable, Certainty::NotDone);
            }
            _ => Outcome::Done,
        };
        self.finish(v, outcome);
    }

    fn fail(&mut self, v: usize, kind: Kind, certainty: Certainty) {
        self.finish(v, Outcome::failed("", kind, certainty));
    }

    fn finish(&mut self, v: usize, outcome: Outcome) {
        let call = self.calls[v].take().expect("it was sent");
        let lost = matches!(outcome, Outcome::Failed(_));
        let at = Moment {
            now: NOW,
            jitter: 0.0,
            pace: Pace::default(),
        };
        finish(&mut self.state, &call.step, outcome, &at);
        if lost && let Some(bug) = self.bug {
            bug.after_loss(&mut self.state, &call.step);
        }
    }

    /// Where nothing is under way, the driver holds what the records say, and
    /// nothing waits but for a node, a pod or a verb.
    fn check_rest(&self) -> Judged {
        let idle = |v: usize| self.calls[v].is_none() && self.planned(v).is_none();
        if !(idle(0) && idle(1)) {
            return Ok(());
        }
        for (v, thing) in self.world.things.iter().enumerate() {
            let record = self.state.volumes.get(&uid(v));
            // A refused volume may be there; it is looked for when it is deleted.
            let unsure = record.is_some_and(|r| r.unsure);
            let known =
                record.is_some_and(|r| !r.volume_id.is_empty() && r.phase != VolumePhase::Gone);
            if thing.made.is_some() != known && !unsure {
                return Err(Broken::Leak);
            }
            for (n, attached) in thing.attached.iter().enumerate() {
                let there = self.state.attachments.contains_key(&(uid(v), node(n)));
                if *attached && !there {
                    return Err(Broken::Leak);
                }
            }
        }
        let pods = self.world.things.iter().any(|t| t.held != [0; 2]);
        let well = self.world.nodes == [Life::Up; 2] && !pods;
        let under_way = matches!(
            self.phase(),
            Some(ActorPhase::Suspending | ActorPhase::Deleting)
        );
        let left = self.phase().is_none() && !self.state.volumes.is_empty();
        if well && (under_way || left) {
            return Err(Broken::Stuck);
        }
        Ok(())
    }

    /// What two states have in common that lead to the same futures: without
    /// times, messages and attempts, and whichever way nodes and volumes are named.
    pub fn fingerprint(&self) -> u128 {
        let swaps = [[0, 1], [1, 0]];
        let all = swaps.iter().flat_map(|v| swaps.iter().map(move |n| (v, n)));
        let prints = all.map(|(v, n)| {
            let [mut one, mut two] = [fnv(1), fnv(2)];
            self.write(v, n, &mut one);
            self.write(v, n, &mut two);
            u128::from(one.finish()) << 64 | u128::from(two.finish())
        });
        prints.min().unwrap_or_default()
    }

    fn write(&self, vs: &[usize; 2], ns: &[usize; 2], to: &mut impl Hasher) {
        self.left.hash(to);
        ns.map(|n| self.world.nodes[n]).hash(to);
        if let Some(actor) = &self.state.actor {
            let place = actor.placement.as_ref();
            let place = place.map(|p| ns[index(p.node.as_str())]);
            (actor.phase as u8, place, actor.deletion.is_some()).hash(to);
        }
        for &v in vs {
            let thing = &self.world.things[v];
            thing.made.hash(to);
            for &n in ns {
                (
                    thing.attached[n],
                    thing.held[n],
                    thing.mark[n],
                    thing.granted[n],
                )
                    .hash(to);
            }
            if let Some(call) = &self.calls[v] {
                let step = std::mem::discriminant(&call.step);
                let at = call.step.attachment().map(|(_, n)| ns[index(n.as_str())]);
                let over = match &call.step {
                    Step::Revoke { generation, .. } => *generation,
                    _ => Generation(0),
                };
                (step, at, over.0, call.happened, call.request).hash(to);
            }
            0xffu8.hash(to);
            let Some(volume) = self.state.volumes.get(&uid(v)) else {
                continue;
            };
            (volume.phase as u8, volume.prepared, volume.unsure).hash(to);
            (volume.volume_id.is_empty(), volume.create.required_bytes).hash(to);
            (volume.generation.0, volume.revoked.0).hash(to);
            trouble(&volume.trouble, to);
            let leftover = volume.leftover.as_ref();
            leftover.map(|l| (ns[index(&l.node_id)], l.sent)).hash(to);
            for &n in ns {
                let from = volume.detached_from.iter();
                from.filter(|d| index(d) == n).count().hash(to);
                let Some(a) = self.state.attachments.get(&(uid(v), node(n))) else {
                    continue;
                };
                (a.phase as u8, a.sent, a.lost, a.fenced, a.generation.0).hash(to);
                std::mem::discriminant(&a.node_id).hash(to);
                trouble(&a.trouble, to);
            }
        }
    }
}

fn fnv(seed: u64) -> std::hash::DefaultHasher {
    let mut hasher = std::hash::DefaultHasher::new();
    seed.hash(&mut hasher);
    hasher
}

fn trouble(trouble: &Option<Trouble>, to: &mut impl Hasher) {
    let stops = trouble.as_ref().map(|t| t.next_try.is_none());
    (stops, trouble.as_ref().map(|t| &t.in_doubt)).hash(to);
}
