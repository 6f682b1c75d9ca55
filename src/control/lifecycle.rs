// SPDX-License-Identifier: Apache-2.0
//! The life of one actor and its volumes as a pure state machine: no I/O, no
//! clock of its own.
//!
//! [`plan`] says which steps may be taken now. Each step is carried out by the
//! engine in three moves: [`begin`] records the intent, the effect happens,
//! [`finish`] records what came of it. [`settle`] makes the moves that need no
//! effect, such as `Resuming` → `Resumed`. Verbs are in [`verb`].
//!
//! One step a volume at a time: CSI wants one call in flight per volume.

mod fence;
#[cfg(test)]
mod model;
mod outcome;
mod pace;
mod step;
pub mod verb;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

pub use fence::fence;
pub use outcome::{Certainty, Failure, Moment, Outcome, begin, finish, restarted, try_at_once};
pub use pace::Pace;
pub use step::Step;

use super::record::{
    ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, NodeId, Trouble, VolumePhase,
    VolumeRecord,
};
use crate::model::{NodeName, ReclaimPolicy, VolumeUid};

/// An actor with all that hangs on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The actor; none: not there (any more).
    pub actor: Option<ActorRecord>,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeUid, VolumeRecord>,
    /// Their attachments.
    pub attachments: BTreeMap<(VolumeUid, NodeName), AttachmentRecord>,
}

/// What may be done now, and when to ask again.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps that are due, at most one a volume.
    pub steps: Vec<Step>,
    /// When the next one is due that is not yet.
    pub wake: Option<Timestamp>,
}

/// The steps that lead on from this state.
pub fn plan(state: &State, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for volume in state.volumes.values() {
        let Some(step) = next_step(state, state.actor.as_ref(), volume) else {
            continue;
        };
        match due(state.trouble(&step), now) {
            Due::Now => plan.steps.push(step),
            Due::Later(at) => plan.wake = Some(plan.wake.map_or(at, |w| w.min(at))),
            Due::WhenAsked => {}
        }
    }
    plan
}

/// Whether nothing is under way, to be done or held: the records say it all.
pub fn is_idle(state: &State) -> bool {
    let rests = state
        .actor
        .as_ref()
        .is_none_or(|a| a.phase == ActorPhase::Suspended && a.deletion.is_none());
    let plan = plan(state, Timestamp::now());
    rests && state.attachments.is_empty() && plan.steps.is_empty() && plan.wake.is_none()
}

enum Due {
    Now,
    Later(Timestamp),
    WhenAsked,
}

fn due(trouble: Option<&Trouble>, now: Timestamp) -> Due {
    let Some(trouble) = trouble else {
        return Due::Now;
    };
    match trouble.next_try {
        None => Due::WhenAsked,
        Some(at) if at <= now => Due::Now,
        // Further off than any back-off: the clock was set back.
        Some(at) if at > now + SignedDuration::from_secs(300) => Due::Now,
        Some(at) => Due::Later(at),
    }
}

fn next_step(state: &State, actor: Option<&ActorRecord>, volume: &VolumeRecord) -> Option<Step> {
    let uid = volume.uid.clone();
    let mut attached = state.attachments_of(&volume.uid).peekable();
    // What is left behind is undone before anything else is begun: also before
    // the next attachment, on whichever node that is.
    if let Some(leftover) = &volume.leftover
        && (leftover.sent || state.attachments_of(&volume.uid).all(|a| !a.sent))
    {
        return Some(Step::DetachAgain { volume: uid });
    }
    let is_attached = attached.peek().is_some();
    if let Some(step) = attached.find_map(|a| step_of_attachment(volume, a)) {
        return Some(step);
    }
    match volume.phase {
        VolumePhase::Intent => {
            let actor = actor?;
            let wanted = !volume.first_consumer || actor.phase == ActorPhase::Resuming;
            let step = if volume.prepared {
                Step::Create { volume: uid }
            } else {
                Step::Prepare { volume: uid }
            };
            (wanted && actor.deletion.is_none()).then_some(step)
        }
        VolumePhase::Creating => Some(Step::Create { volume: uid }),
        // Without an id there may still be a volume: the same CreateVolume
        // again tells its id, and then it can be deleted.
        VolumePhase::Deleting if volume.volume_id.is_empty() => Some(Step::Create { volume: uid }),
        VolumePhase::Deleting => (!is_attached).then_some(Step::Delete { volume: uid }),
        VolumePhase::Ready => step_of_expansion(state, volume, is_attached),
        VolumePhase::Failed | VolumePhase::Gone | VolumePhase::Retained => None,
    }
}

fn step_of_attachment(volume: &VolumeRecord, attachment: &AttachmentRecord) -> Option<Step> {
    let (uid, node) = (volume.uid.clone(), attachment.node.clone());
    let attach = |volume, node| match attachment.node_id {
        NodeId::Unknown => Some(Step::Locate { volume, node }),
        NodeId::Known(_) => Some(Step::Attach { volume, node }),
        NodeId::NotNeeded => None,
    };
    match attachment.phase {
        AttachmentPhase::Attaching if volume.phase == VolumePhase::Ready => attach(uid, node),
        AttachmentPhase::Attached if attachment.lost => attach(uid, node),
        AttachmentPhase::Attaching | AttachmentPhase::Attached => None,
        AttachmentPhase::Revoking => Some(Step::Revoke {
            volume: uid,
            node,
            generation: volume.revoked,
        }),
        AttachmentPhase::Releasing => Some(Step::AwaitRelease { volume: uid, node }),
        AttachmentPhase::Detaching => Some(Step::Detach { volume: uid, node }),
    }
}

fn step_of_expansion(state: &State, volume: &VolumeRecord, is_attached: bool) -> Option<Step> {
    let expansion = volume.expansion.as_ref()?;
    let uid = volume.uid.clone();
    if !expansion.controller_done {
        let may = !(expansion.offline && is_attached);
        return may.then_some(Step::Expand { volume: uid });
    }
    let mut attachments = state.attachments_of(&volume.uid);
    let there = attachments.find(|a| a.phase == AttachmentPhase::Attached)?;
    Some(Step::ExpandNode {
        volume: uid,
        node: there.node.clone(),
    })
}

/// Makes every move that needs no effect. To be called after each change.
pub fn settle(state: &mut State) {
    settle_attachments(state);
    for volume in state.volumes.values_mut() {
        let expansion = volume.expansion.as_ref();
        if expansion.is_some_and(|e| e.controller_done && !e.node_required) {
            volume.expansion = None;
        }
    }
    state.volumes.retain(|_, v| v.phase != VolumePhase::Gone);
    let attached = everything_is_attached(state);
    let Some(actor) = &mut state.actor else {
        return;
    };
    if actor.phase == ActorPhase::Resuming && attached {
        actor.phase = ActorPhase::Resumed;
    }
    if actor.phase == ActorPhase::Suspending && state.attachments.is_empty() {
        actor.placement = None;
        actor.phase = match actor.deletion {
            Some(_) => ActorPhase::Deleting,
            None => ActorPhase::Suspended,
        };
    }
    if actor.phase == ActorPhase::Deleting {
        settle_deletion(state);
    }
}

fn settle_attachments(state: &mut State) {
    let State {
        volumes,
        attachments,
        ..
    } = state;
    attachments.retain(|(uid, _), attachment| {
        let volume = volumes.get(uid);
        let held = matches!(
            attachment.phase,
            AttachmentPhase::Revoking | AttachmentPhase::Releasing
        );
        if held && attachment.fenced {
            attachment.phase = AttachmentPhase::Detaching;
            attachment.trouble = None;
        }
        match attachment.phase {
            AttachmentPhase::Attaching => {
                let ready = volume.is_some_and(|v| v.phase == VolumePhase::Ready);
                if ready && attachment.node_id == NodeId::NotNeeded {
                    attachment.phase = AttachmentPhase::Attached;
                }
                true
            }
            // Without an id, no node and no driver was ever told of it.
            AttachmentPhase::Revoking => volume.is_some_and(|v| !v.volume_id.is_empty()),
            // What was never sent needs no undoing.
            AttachmentPhase::Detaching => {
                attachment.sent && matches!(attachment.node_id, NodeId::Known(_))
            }
            AttachmentPhase::Attached | AttachmentPhase::Releasing => true,
        }
    });
}

fn everything_is_attached(state: &State) -> bool {
    let placement = state.actor.as_ref().and_then(|a| a.placement.as_ref());
    let Some(placement) = placement else {
        return false;
    };
    state.bound().all(|volume| {
        volume.phase == VolumePhase::Ready
            && state
                .attachments
                .get(&(volume.uid.clone(), placement.node.clone()))
                .is_some_and(|a| a.phase == AttachmentPhase::Attached)
    })
}

fn settle_deletion(state: &mut State) {
    let attached: Vec<_> = state.attachments.keys().map(|(v, _)| v.clone()).collect();
    state.volumes.retain(|uid, volume| {
        if attached.contains(uid) {
            return true;
        }
        let_go(volume)
    });
    let over = state
        .volumes
        .values()
        .all(|v| v.phase == VolumePhase::Retained);
    if over && state.attachments.is_empty() {
        state.actor = None;
    }
}

/// What becomes of a volume that is attached nowhere and that its actor needs no
/// more. Whether a record of it stays.
fn let_go(volume: &mut VolumeRecord) -> bool {
    if volume.is_unmade() {
        return false;
    }
    match volume.phase {
        // A volume that was never ready holds nobody's data: there is nothing
        // to retain.
        VolumePhase::Intent | VolumePhase::Failed | VolumePhase::Creating => {
            volume.phase = VolumePhase::Deleting;
            volume.trouble = None;
        }
        VolumePhase::Ready => {
            volume.phase = match volume.reclaim_policy {
                ReclaimPolicy::Delete => VolumePhase::Deleting,
                ReclaimPolicy::Retain => VolumePhase::Retained,
            };
            volume.trouble = None;
            volume.expansion = None;
        }
        VolumePhase::Deleting | VolumePhase::Gone | VolumePhase::Retained => {}
    }
    true
}

impl State {
    /// The volumes that the actor's revision of its template names.
    pub fn bound(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.volumes.values().filter(|v| !v.unbound)
    }

    /// The attachments of a volume.
    pub fn attachments_of(&self, volume: &VolumeUid) -> impl Iterator<Item = &AttachmentRecord> {
        self.attachments
            .values()
            .filter(move |a| &a.volume == volume)
    }

    /// The volumes by name, which is the order that people see.
    pub fn volumes_by_name(&self) -> Vec<&VolumeRecord> {
        let mut volumes: Vec<_> = self.volumes.values().collect();
        volumes.sort_by_key(|v| (&v.name, v.introduced));
        volumes
    }
}
