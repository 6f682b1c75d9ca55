// SPDX-License-Identifier: Apache-2.0
//! The state machine in its world: which events are possible, and what each does.

use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::*,
    bugs::Bug,
    op::{Budget, Op},
    records,
    world::{Broken, Judged, Life, World},
};
use crate::{
    control::record::{Opaque, Placement},
    csi::Accessibility,
    error::Kind,
    model::{AccessMode, Audience},
};

pub const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A call that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub step: Step,
    /// What it asks for, of CreateVolume.
    pub request: u64,
    /// Whether it happened: a pod that holds a volume is no release.
    pub happened: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sim {
    /// Shared until it changes: half of what happens is in the world alone.
    pub state: Arc<State>,
    pub world: World,
    pub calls: [Option<Call>; 2],
    pub left: Budget,
    pub bug: Option<Bug>,
}

pub static UIDS: LazyLock<[VolumeUid; 2]> =
    LazyLock::new(|| ["v1", "v2"].map(|v| v.parse().unwrap()));
pub static NODES: LazyLock<[NodeName; 2]> =
    LazyLock::new(|| ["node-a", "node-b"].map(|n| n.parse().unwrap()));
/// As the driver names them.
pub static NODE_IDS: LazyLock<[String; 2]> =
    LazyLock::new(|| [0, 1].map(|n: usize| format!("id-of-{}", NODES[n])));

pub fn key(v: usize, n: usize) -> (VolumeUid, NodeName) {
    (UIDS[v].clone(), NODES[n].clone())
}

pub fn index(name: &str) -> usize {
    usize::from(name.ends_with('b') || name.ends_with('2'))
}

pub fn placement(n: usize) -> Placement {
    Placement {
        node: NODES[n].clone(),
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

impl Sim {
    /// An actor that was just created, with so many volumes.
    pub fn new(volumes: usize, attaches: bool, left: Budget, bug: Option<Bug>) -> Self {
        let actor = records::actor();
        let volumes = (1..=volumes).map(|n| records::volume(n, ReclaimPolicy::Delete, false));
        let volumes = volumes.map(|v| (v.uid.clone(), v)).collect();
        Self {
            state: Arc::new(State {
                actor: Some(actor),
                volumes,
                ..State::default()
            }),
            world: World::new(attaches),
            calls: [None, None],
            left,
            bug,
        }
    }

    /// All events that are possible now.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::with_capacity(24);
        if self.state.actor.is_some() {
            ops.extend([Op::Resume(0), Op::Resume(1), Op::Suspend, Op::Crash]);
            ops.push(Op::Delete);
        }
        ops.push(Op::Die);
        let planned = self.planned();
        for v in 0..2u8 {
            self.ops_of_volume(v, &planned[usize::from(v)], &mut ops);
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

    fn ops_of_volume(&self, v: u8, planned: &Option<Step>, ops: &mut Vec<Op>) {
        let at = usize::from(v);
        let record = self.state.volumes.get(&UIDS[at]);
        match (&self.calls[at], planned) {
            (Some(call), _) if call.happened.is_none() => {
                ops.extend([Op::Effect(v), Op::Lose(v)]);
                if matches!(call.step, Step::Create { .. } | Step::Attach { .. }) {
                    ops.push(Op::Refuse(v));
                }
            }
            (Some(_), _) => ops.extend([Op::Answer(v), Op::Lose(v)]),
            (None, Some(_)) => ops.push(Op::Send(v)),
            (None, None) => {}
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
            if record.is_some_and(|r| {
                r.phase == VolumePhase::Ready
                    && r.leftover.is_none()
                    && r.detached_from.contains(&NODE_IDS[there])
            }) && self.state.attachments_of(&UIDS[at]).next().is_none()
            {
                ops.push(Op::Ghost(v, n));
            }
        }
    }

    /// The steps that are due, by volume. One to a node that nobody reaches, or
    /// that a pod holds up, changes nothing and is left out.
    fn planned(&self) -> [Option<Step>; 2] {
        // Later than any pause: every retry is due.
        let mut steps = plan(&self.state, NOW + SignedDuration::from_secs(200)).steps;
        if let Some(bug) = self.bug {
            bug.in_plan(&self.state, &mut steps);
        }
        let mut planned = [None, None];
        for step in steps {
            let v = index(step.volume().as_str());
            if self.is_of_use(v, &step) {
                planned[v] = Some(step);
            }
        }
        planned
    }

    fn is_of_use(&self, v: usize, step: &Step) -> bool {
        let up = |n: &NodeName| self.world.nodes[index(n.as_str())] == Life::Up;
        match step {
            Step::Revoke { node, .. } => up(node),
            Step::AwaitRelease { node, .. } => {
                let held = self.world.things[v].held[index(node.as_str())] != 0;
                up(node) && (!held || self.bug == Some(Bug::DetachUnreleased))
            }
            _ => true,
        }
    }

    pub fn apply(&mut self, op: Op) -> Judged {
        self.act(op)?;
        self.check_rest()
    }

    /// What happens, judged but for what is left when nothing more happens.
    pub fn act(&mut self, op: Op) -> Judged {
        self.left = op
            .pay(self.left)
            .expect("only what is possible is asked for");
        let was = self.phase();
        let before = self.generations();
        match op {
            Op::Resume(n) => {
                if self.bug == Some(Bug::AttachBeforeDetach) {
                    Bug::end_suspend(self.records());
                }
                let done = verb::resume(self.records(), placement(n.into()));
                if done.is_ok() && was == Some(ActorPhase::Suspended) {
                    self.plant(Bug::after_resume);
                }
            }
            Op::Suspend => {
                let _ = verb::suspend(self.records(), NOW);
                self.plant(Bug::after_end);
            }
            Op::Crash => {
                let _ = verb::crash(self.records(), NOW);
                self.plant(Bug::after_end);
            }
            Op::Delete => {
                let _ = verb::delete(self.records(), NOW);
            }
            Op::Send(v) => {
                let [one, two] = self.planned();
                let step = if v == 0 { one } else { two };
                self.send(v.into(), step.expect("it is planned"));
            }
            Op::Effect(v) => self.effect(v.into())?,
            Op::Answer(v) => self.answer(v.into()),
            Op::Lose(v) => self.fail(v.into(), Kind::DeadlineExceeded, Certainty::InDoubt),
            Op::Refuse(v) => {
                // Who wants to delete is told that nothing is there only where
                // that is true; else that he may not ask.
                let volume = self.state.volumes.get(&UIDS[usize::from(v)]);
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
                fence(self.records(), &NODES[usize::from(n)]);
            }
            Op::Back(n) => self.back(n.into()),
            Op::Die => {
                self.calls = [None, None];
                restarted(self.records());
            }
            Op::Ghost(v, n) => {
                self.world.attach(v.into(), n.into())?;
                let id = &NODE_IDS[usize::from(n)];
                verb::detach_again(self.records(), &UIDS[usize::from(v)], id);
            }
        }
        let after = self.generations();
        let gone = |v: usize| !self.state.volumes.contains_key(&UIDS[v]);
        if (0..2).any(|v| after[v] < before[v] && !gone(v)) {
            return Err(Broken::SameGeneration);
        }
        if was == Some(ActorPhase::Resuming) && self.phase() == Some(ActorPhase::Resumed) {
            self.grant()?;
        }
        Ok(())
    }

    fn plant(&mut self, at: fn(Bug, &mut State)) {
        if let Some(bug) = self.bug {
            at(bug, self.records());
        }
    }

    fn records(&mut self) -> &mut State {
        Arc::make_mut(&mut self.state)
    }

    fn generations(&self) -> [u64; 2] {
        [0, 1].map(|v| {
            self.state
                .volumes
                .get(&UIDS[v])
                .map_or(0, |r| r.generation.0)
        })
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
                let record = self.state.volumes.get(&UIDS[v]);
                let fenced = self.state.attachments.get(&key(v, n));
                let fenced = fenced.filter(|a| a.fenced).map_or(0, |a| a.generation.0);
                let over = record.map_or(u64::MAX, |r| r.revoked.0.max(fenced));
                thing.mark[n] = thing.mark[n].max(over);
            }
        }
    }

    fn send(&mut self, v: usize, step: Step) {
        if !(self.bug == Some(Bug::NoIntent) && matches!(step, Step::Create { .. })) {
            begin(self.records(), &step);
        }
        let request = self.state.volumes[&UIDS[v]].create.required_bytes;
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
        let record = self.state.volumes.get(&UIDS[v]);
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
                if self.state.attachments_of(&UIDS[v]).next().is_some() {
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
                volume_id: format!("id-{}", UIDS[v]),
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
        finish(self.records(), &call.step, outcome, &at);
        if lost && let Some(bug) = self.bug {
            bug.after_loss(self.records(), &call.step);
        }
    }

    /// Whether nothing is under way and nothing can be sent.
    pub fn is_at_rest(&self) -> bool {
        self.rests(0) && self.rests(1)
    }

    pub fn rests(&self, v: usize) -> bool {
        self.calls[v].is_none() && self.planned()[v].is_none()
    }

    /// Where nothing is under way, the driver holds what the records say, and
    /// nothing waits but for a node, a pod or a verb.
    pub fn check_rest(&self) -> Judged {
        if !self.is_at_rest() {
            return Ok(());
        }
        for (v, thing) in self.world.things.iter().enumerate() {
            let record = self.state.volumes.get(&UIDS[v]);
            // A refused volume may be there; it is looked for when it is deleted.
            let unsure = record.is_some_and(|r| r.unsure);
            let known =
                record.is_some_and(|r| !r.volume_id.is_empty() && r.phase != VolumePhase::Gone);
            if thing.made.is_some() != known && !unsure {
                return Err(Broken::Leak);
            }
            for (n, attached) in thing.attached.iter().enumerate() {
                let there = self.state.attachments.contains_key(&key(v, n));
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
}
