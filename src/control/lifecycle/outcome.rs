// SPDX-License-Identifier: Apache-2.0
//! What is recorded before a step and after it.

use jiff::Timestamp;

use super::{Pace, State, Step, settle};
use crate::{
    control::record::{AttachmentPhase, NodeId, Opaque, Trouble, VolumePhase, VolumeRecord},
    csi::Accessibility,
    error::Kind,
    model::{AccessMode, Topology, VolumeUid},
};

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Of [`Step::Prepare`]: what the driver is asked for.
    Prepared {
        access_mode: AccessMode,
        accessibility: Accessibility,
    },
    /// Of [`Step::Create`].
    Created {
        volume_id: String,
        capacity_bytes: u64,
        volume_context: Opaque,
        accessible_topology: Vec<Topology>,
    },
    /// Of [`Step::Locate`]; none: the driver does not attach.
    Located(Option<String>),
    /// Of [`Step::Attach`].
    Attached(Opaque),
    /// Of [`Step::Expand`].
    Expanded {
        capacity_bytes: u64,
        node_required: bool,
    },
    /// Of [`Step::Expand`]: the driver expands only what is published nowhere.
    OfflineOnly,
    /// Of [`Step::ExpandNode`]: the volume is not published there yet.
    NotPublished,
    /// Of every other step.
    Done,
    /// It failed.
    Failed(Failure),
}

/// What is known after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// The answer was no: nothing is under way.
    Final,
    /// Nothing was sent, or it does no harm to do it again.
    NotDone,
    /// It may be done, under way or not done.
    InDoubt,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What was attempted and what came back.
    pub message: String,
    /// What went wrong.
    pub kind: Kind,
    /// What is known.
    pub certainty: Certainty,
}

impl Outcome {
    /// A failure.
    pub fn failed(message: impl Into<String>, kind: Kind, certainty: Certainty) -> Self {
        Self::Failed(Failure {
            message: message.into(),
            kind,
            certainty,
        })
    }
}

/// When a step ended, and what the next try of a failed one hangs on.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Timestamp,
    /// 0 to 1.
    pub jitter: f64,
    pub pace: Pace,
}

/// Records that the step is about to be taken. To be durable before it is.
pub fn begin(state: &mut State, step: &Step) {
    match step {
        Step::Create { volume } => {
            if let Some(volume) = state.volumes.get_mut(volume)
                && volume.phase == VolumePhase::Intent
            {
                volume.phase = VolumePhase::Creating;
            }
        }
        Step::Attach { volume, node } => {
            let key = (volume.clone(), node.clone());
            if let Some(attachment) = state.attachments.get_mut(&key) {
                attachment.sent = true;
            }
        }
        Step::DetachAgain { volume } => {
            let volume = state.volumes.get_mut(volume);
            if let Some(leftover) = volume.and_then(|v| v.leftover.as_mut()) {
                leftover.sent = true;
            }
        }
        _ => {}
    }
}

/// Records what came of the step.
pub fn finish(state: &mut State, step: &Step, outcome: Outcome, at: &Moment) {
    match outcome {
        Outcome::Failed(failure) => fail(state, step, failure, at),
        outcome => {
            if let Some(trouble) = state.trouble_slot(step) {
                *trouble = None;
            }
            succeed(state, step, outcome);
        }
    }
    settle(state);
}

fn succeed(state: &mut State, step: &Step, outcome: Outcome) {
    let Some(volume) = state.volumes.get_mut(step.volume()) else {
        return;
    };
    match (step, outcome) {
        (
            Step::Prepare { .. },
            Outcome::Prepared {
                access_mode,
                accessibility,
            },
        ) => {
            // What was sent never changes.
            if volume.phase == VolumePhase::Intent {
                volume.create.access_mode = access_mode;
                volume.create.accessibility = accessibility;
                volume.prepared = true;
            }
        }
        (
            Step::Create { .. },
            Outcome::Created {
                volume_id,
                capacity_bytes,
                volume_context,
                accessible_topology,
            },
        ) => {
            volume.volume_id = volume_id;
            volume.capacity_bytes = capacity_bytes;
            volume.volume_context = volume_context;
            volume.accessible_topology = accessible_topology;
            volume.unsure = false;
            // A volume whose deletion was asked for meanwhile goes on to that.
            if volume.phase == VolumePhase::Creating {
                volume.phase = VolumePhase::Ready;
            }
        }
        (Step::Delete { .. }, Outcome::Done) => volume.phase = VolumePhase::Gone,
        (Step::DetachAgain { .. }, Outcome::Done) => volume.leftover = None,
        (Step::Expand { .. } | Step::ExpandNode { .. }, outcome) => expanded(volume, outcome),
        (step, outcome) => succeed_at_node(state, step, outcome),
    }
}

fn expanded(volume: &mut VolumeRecord, outcome: Outcome) {
    let Some(expansion) = &mut volume.expansion else {
        return;
    };
    match outcome {
        Outcome::Expanded {
            capacity_bytes,
            node_required,
        } => {
            volume.capacity_bytes = volume.capacity_bytes.max(capacity_bytes);
            // More may have been asked for meanwhile.
            expansion.controller_done = capacity_bytes >= expansion.wanted_bytes;
            expansion.node_required |= node_required;
        }
        Outcome::OfflineOnly => expansion.offline = true,
        // An answer to a smaller wish leaves the part of the larger one to do.
        Outcome::Done if expansion.controller_done => expansion.node_required = false,
        _ => {}
    }
}

fn succeed_at_node(state: &mut State, step: &Step, outcome: Outcome) {
    let Some(key) = step.attachment() else {
        return;
    };
    let Some(attachment) = state.attachments.get_mut(&key) else {
        return;
    };
    // The phase is looked at again: a verb may have come meanwhile.
    match (step, outcome, attachment.phase) {
        // A suspend finds that nothing was attached, and nothing will be.
        (Step::Locate { .. }, Outcome::Located(id), AttachmentPhase::Attaching) => {
            attachment.node_id = id.map_or(NodeId::NotNeeded, NodeId::Known);
        }
        (Step::Attach { .. }, Outcome::Attached(context), phase) => {
            attachment.publish_context = context;
            attachment.lost = false;
            if phase == AttachmentPhase::Attaching {
                attachment.phase = AttachmentPhase::Attached;
            }
        }
        (Step::Revoke { generation, .. }, Outcome::Done, AttachmentPhase::Revoking)
            if *generation >= attachment.generation =>
        {
            attachment.phase = AttachmentPhase::Releasing;
        }
        (Step::AwaitRelease { .. }, Outcome::Done, AttachmentPhase::Releasing) => {
            attachment.phase = AttachmentPhase::Detaching;
        }
        (Step::Detach { .. }, Outcome::Done, AttachmentPhase::Detaching) => {
            let gone = state.attachments.remove(&key).map(|a| a.node_id);
            if let (Some(NodeId::Known(id)), Some(volume)) = (gone, state.volumes.get_mut(&key.0)) {
                volume.detached_from.insert(id);
            }
        }
        _ => {}
    }
}

fn fail(state: &mut State, step: &Step, failure: Failure, at: &Moment) {
    let is_final = failure.certainty == Certainty::Final;
    if fail_volume(state, step, &failure) {
        state.volumes.remove(step.volume());
        return;
    }
    if let Some(key) = step.attachment()
        && matches!(step, Step::Locate { .. } | Step::Attach { .. })
        && let Some(attachment) = state.attachments.get(&key)
        && !matches!(
            attachment.phase,
            AttachmentPhase::Attaching | AttachmentPhase::Attached
        )
    {
        // The late no of what is being undone already says nothing.
        return;
    }
    let forward = is_forward(state, step);
    let Some(trouble) = state.trouble_slot(step) else {
        return;
    };
    let last = trouble.take();
    let attempts = last.as_ref().map_or(0, |t| t.attempts).saturating_add(1);
    let next_try = (!(forward && is_final)).then(|| at.now + at.pace.pause(attempts, at.jitter));
    *trouble = Some(Trouble {
        message: failure.message,
        code: failure.kind.code(),
        attempts,
        last_try: at.now,
        next_try,
        in_doubt: match failure.certainty {
            Certainty::Final => String::new(),
            // What was in doubt before is so still.
            Certainty::NotDone => last.map(|t| t.in_doubt).unwrap_or_default(),
            Certainty::InDoubt => step.rpc().to_owned(),
        },
    });
}

/// What a failure means for the volume itself. Whether it is gone for good.
fn fail_volume(state: &mut State, step: &Step, failure: &Failure) -> bool {
    let Some(volume) = state.volumes.get_mut(step.volume()) else {
        return false;
    };
    let is_final = failure.certainty == Certainty::Final;
    match step {
        Step::Prepare { .. } if is_final => volume.phase = VolumePhase::Failed,
        Step::Create { .. } if is_final && volume.phase == VolumePhase::Deleting => {
            // The driver says that there is no such volume and that none is on
            // its way; these kinds say nothing of it.
            let says_nothing = matches!(
                failure.kind,
                Kind::PermissionDenied | Kind::Unimplemented | Kind::AlreadyExists
            );
            return !(volume.unsure && says_nothing);
        }
        Step::Create { .. } if is_final => volume.phase = VolumePhase::Failed,
        Step::Create { .. } => volume.unsure |= failure.certainty == Certainty::InDoubt,
        _ => {}
    }
    false
}

/// The way forward stops at a final no, until a verb asks again. The way back
/// never stops: nobody else would free what is left.
fn is_forward(state: &State, step: &Step) -> bool {
    let phase = state.volumes.get(step.volume()).map(|v| v.phase);
    match step {
        Step::Locate { .. } | Step::Attach { .. } => true,
        Step::Expand { .. } | Step::ExpandNode { .. } => true,
        Step::Prepare { .. } | Step::Create { .. } => phase == Some(VolumePhase::Failed),
        _ => false,
    }
}

/// What a restart makes of the records: a CreateVolume that was under way has no
/// sure answer, and whatever waits is tried again at once.
pub fn restarted(state: &mut State) {
    for volume in state.volumes.values_mut() {
        let under_way = volume.phase == VolumePhase::Creating
            || (volume.phase == VolumePhase::Deleting && volume.volume_id.is_empty());
        volume.unsure |= under_way;
        hurry(&mut volume.trouble);
        if let Some(expansion) = &mut volume.expansion {
            hurry(&mut expansion.trouble);
        }
        if let Some(leftover) = &mut volume.leftover {
            hurry(&mut leftover.trouble);
        }
    }
    for attachment in state.attachments.values_mut() {
        hurry(&mut attachment.trouble);
    }
    settle(state);
}

/// What waits to be attached is tried at once.
pub fn try_at_once(state: &mut State, volume: &VolumeUid) {
    let attachments = state.attachments.values_mut();
    for attachment in attachments.filter(|a| &a.volume == volume) {
        hurry(&mut attachment.trouble);
    }
}

/// Makes a try that waits due at once.
fn hurry(trouble: &mut Option<Trouble>) {
    if let Some(trouble) = trouble
        && trouble.next_try.is_some()
    {
        trouble.next_try = Some(trouble.last_try);
    }
}
