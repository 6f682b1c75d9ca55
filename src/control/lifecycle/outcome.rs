// SPDX-License-Identifier: Apache-2.0
//! What is recorded before a step and after it.

use std::time::Duration;

use jiff::Timestamp;

use super::{State, Step, settle};
use crate::{
    control::record::{AttachmentPhase, NodeId, Opaque, Trouble, VolumePhase},
    error::Kind,
};

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Of [`Step::Create`].
    Created {
        volume_id: String,
        capacity_bytes: u64,
        volume_context: Opaque,
    },
    /// Of [`Step::Locate`]; none: the driver does not attach.
    Located(Option<String>),
    /// Of [`Step::Attach`].
    Attached(Opaque),
    /// Of every other step.
    Done,
    /// It failed.
    Failed(Failure),
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What was attempted and what came back.
    pub message: String,
    /// What went wrong.
    pub kind: Kind,
    /// Whether the driver answered no, so that nothing is under way.
    pub is_final: bool,
}

impl Outcome {
    /// A failure.
    pub fn failed(message: impl Into<String>, kind: Kind, is_final: bool) -> Self {
        Self::Failed(Failure {
            message: message.into(),
            kind,
            is_final,
        })
    }
}

/// The pause after this many failures in a row: half a second at first, so that
/// a short outage costs little, then doubling to two minutes. `jitter` is 0 to 1
/// and takes up to a quarter off.
pub fn backoff(attempts: u32, jitter: f64) -> Duration {
    const FIRST: f64 = 0.5;
    const LONGEST: f64 = 120.0;
    // The first four tries come quickly.
    let doublings = attempts.saturating_sub(4).min(16);
    let full = (FIRST * f64::from(1u32 << doublings)).min(LONGEST);
    Duration::from_secs_f64(full * (1.0 - jitter.clamp(0.0, 1.0) / 4.0))
}

/// Records that the step is about to be taken. To be durable before it is.
pub fn begin(state: &mut State, step: &Step) {
    if let Step::Create { volume } = step
        && let Some(volume) = state.volumes.get_mut(volume)
        && volume.phase == VolumePhase::Intent
    {
        volume.phase = VolumePhase::Creating;
    }
}

/// Records what came of the step.
pub fn finish(state: &mut State, step: &Step, outcome: Outcome, now: Timestamp, jitter: f64) {
    match outcome {
        Outcome::Failed(failure) => fail(state, step, failure, now, jitter),
        outcome => {
            let trouble = match step.attachment() {
                Some(key) => state.attachments.get_mut(&key).map(|a| &mut a.trouble),
                None => state.volumes.get_mut(step.volume()).map(|v| &mut v.trouble),
            };
            if let Some(trouble) = trouble {
                *trouble = None;
            }
            succeed(state, step, outcome);
        }
    }
    settle(state);
}

fn succeed(state: &mut State, step: &Step, outcome: Outcome) {
    match (step, outcome) {
        (
            Step::Create { volume },
            Outcome::Created {
                volume_id,
                capacity_bytes,
                volume_context,
            },
        ) => {
            let Some(volume) = state.volumes.get_mut(volume) else {
                return;
            };
            volume.volume_id = volume_id;
            volume.capacity_bytes = capacity_bytes;
            volume.volume_context = volume_context;
            volume.unsure = false;
            // A volume whose deletion was asked for meanwhile goes on to that.
            if volume.phase == VolumePhase::Creating {
                volume.phase = VolumePhase::Ready;
            }
        }
        (Step::Delete { volume }, Outcome::Done) => {
            if let Some(volume) = state.volumes.get_mut(volume) {
                volume.phase = VolumePhase::Gone;
            }
        }
        (Step::Forget { volume, node }, Outcome::Done) => {
            if let Some(volume) = state.volumes.get_mut(volume) {
                volume.nodes.remove(node);
            }
        }
        (step, outcome) => succeed_at_node(state, step, outcome),
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
            state.attachments.remove(&key);
        }
        _ => {}
    }
}

fn fail(state: &mut State, step: &Step, failure: Failure, now: Timestamp, jitter: f64) {
    let Failure {
        message,
        kind,
        is_final,
    } = failure;
    if let Step::Create { volume: uid } = step
        && let Some(volume) = state.volumes.get_mut(uid)
    {
        if !is_final {
            volume.unsure = true;
        } else if volume.phase == VolumePhase::Deleting {
            // The driver says that there is no such volume and that none is on
            // its way; refused credentials say nothing of the kind.
            if !(volume.unsure && kind == Kind::PermissionDenied) {
                state.volumes.remove(uid);
                return;
            }
        } else {
            volume.phase = VolumePhase::Failed;
        }
    }
    // The way forward stops at a final no, until a verb asks again. The way
    // back never stops: nobody else would free what is left.
    let slot = match step.attachment() {
        Some(key) => state.attachments.get_mut(&key).and_then(|a| {
            let forward = matches!(step, Step::Locate { .. } | Step::Attach { .. });
            // The late no of what is being undone already says nothing.
            let late = forward && a.phase != AttachmentPhase::Attaching;
            (!late).then_some((&mut a.trouble, forward))
        }),
        None => state.volumes.get_mut(step.volume()).map(|v| {
            let forward = v.phase == VolumePhase::Failed;
            (&mut v.trouble, forward)
        }),
    };
    let Some((trouble, forward)) = slot else {
        return;
    };
    let attempts = trouble.as_ref().map_or(0, |t| t.attempts).saturating_add(1);
    let next_try = (!(forward && is_final)).then(|| now + backoff(attempts, jitter));
    *trouble = Some(Trouble {
        message,
        code: kind.code(),
        attempts,
        last_try: now,
        next_try,
    });
}

/// What a restart makes of the records: a CreateVolume that was under way has no
/// sure answer, and whatever waits is tried again at once.
pub fn restarted(state: &mut State) {
    for volume in state.volumes.values_mut() {
        let under_way = volume.phase == VolumePhase::Creating
            || (volume.phase == VolumePhase::Deleting && volume.volume_id.is_empty());
        volume.unsure |= under_way;
        hurry(&mut volume.trouble);
    }
    for attachment in state.attachments.values_mut() {
        hurry(&mut attachment.trouble);
    }
    settle(state);
}

/// Makes a try that waits due at once.
fn hurry(trouble: &mut Option<Trouble>) {
    if let Some(trouble) = trouble
        && trouble.next_try.is_some()
    {
        trouble.next_try = Some(trouble.last_try);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tries_come_quickly_and_the_last_every_two_minutes() {
        let waited: Duration = (1..=4).map(|n| backoff(n, 0.0)).sum();
        assert_eq!(waited, Duration::from_secs(2));
        assert_eq!(backoff(6, 0.0), Duration::from_secs(2));
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(120));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(375));
    }
}
