// SPDX-License-Identifier: Apache-2.0
//! What the verbs change in the records of an actor. Repeating one is harmless.

use jiff::Timestamp;

use super::{State, settle};
use crate::{
    control::record::{
        ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, Expansion, Leftover, NodeId,
        Opaque, Placement, Trouble, VolumePhase,
    },
    error::{Error, Result},
    model::{NodeName, VolumeUid},
};

fn actor_of(state: &mut State) -> Result<&mut ActorRecord> {
    state
        .actor
        .as_mut()
        .ok_or_else(|| Error::not_found("the actor does not exist"))
}

/// Resumes the actor: a new generation for every volume, in one batch.
///
/// Resumed already, or on the way there, at the same place: nothing changes but
/// that what had failed for good is tried again.
pub fn resume(state: &mut State, placement: Placement) -> Result<()> {
    let actor = actor_of(state)?;
    let name = actor.actor.clone();
    match (actor.phase, &actor.placement) {
        (ActorPhase::Suspended, _) => {
            actor.phase = ActorPhase::Resuming;
            start(state, placement);
        }
        (ActorPhase::Resuming | ActorPhase::Resumed, Some(there)) => {
            if there.node != placement.node {
                return Err(Error::precondition(format!(
                    "actor {name} is resumed on node {}: suspend it first",
                    there.node
                )));
            }
            if there.audience != placement.audience || there.container != placement.container {
                return Err(Error::precondition(format!(
                    "actor {name} is resumed already, for another pod or container: suspend it first"
                )));
            }
        }
        (ActorPhase::Suspending, _) if actor.deletion.is_none() => {
            return Err(Error::aborted(format!(
                "actor {name} is still being suspended ({}): try again",
                what_is_awaited(state)
            )));
        }
        _ => {
            return Err(Error::precondition(format!(
                "actor {name} is being deleted"
            )));
        }
    }
    try_again(state);
    settle(state);
    Ok(())
}

fn start(state: &mut State, placement: Placement) {
    let node = placement.node.clone();
    if let Some(actor) = &mut state.actor {
        actor.placement = Some(placement);
    }
    for volume in state.volumes.values_mut() {
        volume.generation = volume.generation.next();
        // What was not sent yet is asked for anew: the node may be another one.
        if volume.phase == VolumePhase::Intent {
            volume.prepared = false;
        }
        if volume.leftover.as_ref().is_some_and(|l| !l.sent) {
            volume.leftover = None;
        }
        volume.nodes.insert(node.clone());
        let attachment = AttachmentRecord {
            volume: volume.uid.clone(),
            node: node.clone(),
            node_id: NodeId::Unknown,
            publish_context: Opaque::default(),
            phase: AttachmentPhase::Attaching,
            sent: false,
            lost: false,
            fenced: false,
            generation: volume.generation,
            trouble: None,
        };
        state
            .attachments
            .insert((volume.uid.clone(), node.clone()), attachment);
    }
}

/// Lets what stopped at a final no be tried once more.
pub fn try_again(state: &mut State) {
    let stopped = |t: &Option<Trouble>| t.as_ref().is_some_and(|t| t.next_try.is_none());
    for volume in state.volumes.values_mut() {
        if volume.phase == VolumePhase::Failed {
            // The driver may have what it was asked for once: then it is asked
            // for that alone. Else everything is open again.
            volume.phase = if volume.unsure {
                VolumePhase::Creating
            } else {
                VolumePhase::Intent
            };
            volume.prepared = volume.unsure;
            volume.trouble = None;
        }
    }
    for attachment in state.attachments.values_mut() {
        if stopped(&attachment.trouble) {
            attachment.trouble = None;
        }
    }
}

/// Suspends the actor: the generation is over from here on.
pub fn suspend(state: &mut State) -> Result<()> {
    let actor = actor_of(state)?;
    if matches!(actor.phase, ActorPhase::Resuming | ActorPhase::Resumed) {
        revoke(state);
        settle(state);
    }
    Ok(())
}

fn revoke(state: &mut State) {
    if let Some(actor) = &mut state.actor {
        actor.phase = ActorPhase::Suspending;
    }
    for volume in state.volumes.values_mut() {
        volume.revoked = volume.generation;
    }
    for attachment in state.attachments.values_mut() {
        attachment.phase = AttachmentPhase::Revoking;
        attachment.lost = false;
        attachment.trouble = None;
    }
}

/// Deletes the actor, when it is suspended. A resumed one is refused; a resume
/// that has not come to its end is called off.
pub fn delete(state: &mut State, now: Timestamp) -> Result<()> {
    let actor = actor_of(state)?;
    match actor.phase {
        ActorPhase::Resumed => {
            let node = actor.placement.as_ref().map(|p| p.node.to_string());
            return Err(Error::precondition(format!(
                "actor {} is resumed on node {}: suspend it first",
                actor.actor,
                node.unwrap_or_default()
            )));
        }
        ActorPhase::Deleting => return Ok(()),
        ActorPhase::Suspended => actor.phase = ActorPhase::Deleting,
        ActorPhase::Resuming | ActorPhase::Suspending => {}
    }
    actor.deletion.get_or_insert(now);
    if actor.phase == ActorPhase::Resuming {
        revoke(state);
    }
    settle(state);
    Ok(())
}

/// Lets the volume grow to so many bytes; whether there is anything to do.
pub fn expand(state: &mut State, uid: &VolumeUid, bytes: u64) -> Result<bool> {
    let Some(volume) = state.volumes.get_mut(uid) else {
        return Err(Error::not_found(format!("volume {uid} does not exist")));
    };
    if volume.phase != VolumePhase::Ready {
        return Err(Error::precondition(format!(
            "volume {uid} is {}: only one that is Ready can grow",
            volume.phase.as_str()
        )));
    }
    // One whose size the driver never told has at least what was asked for.
    let has = volume.capacity_bytes.max(volume.create.required_bytes);
    let refused = |e: &Expansion| e.trouble.as_ref().is_some_and(|t| t.next_try.is_none());
    match &mut volume.expansion {
        None if bytes == has => return Ok(false),
        _ if bytes < has => {
            return Err(Error::invalid(format!(
                "volume {uid} has {has} bytes: volumes only grow, ask for more"
            )));
        }
        // What was sent, or is about to be, is sent again as it was.
        Some(under_way)
            if bytes != under_way.wanted_bytes
                && !(refused(under_way) || under_way.controller_done) =>
        {
            return Err(Error::precondition(format!(
                "volume {uid} is growing to {} bytes: wait until it has them",
                under_way.wanted_bytes
            )));
        }
        Some(under_way) => {
            under_way.controller_done &= bytes <= has;
            under_way.wanted_bytes = bytes;
            // The driver may do by now what it did not.
            under_way.offline = false;
            if refused(under_way) {
                under_way.trouble = None;
            }
        }
        None => {
            volume.expansion = Some(Expansion {
                wanted_bytes: bytes,
                controller_done: false,
                node_required: false,
                offline: false,
                trouble: None,
            });
        }
    }
    settle(state);
    Ok(true)
}

/// The driver's listing lacks an attachment: it is to be made again.
pub fn attach_again(state: &mut State, key: &(VolumeUid, NodeName)) {
    if let Some(attachment) = state.attachments.get_mut(key)
        && attachment.phase == AttachmentPhase::Attached
    {
        attachment.lost = true;
        attachment.trouble = None;
    }
}

/// The driver lists a node from which the volume was detached: it is to be
/// detached again.
pub fn detach_again(state: &mut State, uid: &VolumeUid, node_id: &str) {
    if let Some(volume) = state.volumes.get_mut(uid)
        && volume.phase == VolumePhase::Ready
        && volume.leftover.is_none()
    {
        volume.leftover = Some(Leftover {
            node_id: node_id.to_owned(),
            sent: false,
            trouble: None,
        });
    }
}

/// What an actor that is being suspended waits for, for people.
pub fn what_is_awaited(state: &State) -> String {
    let mut parts = Vec::new();
    for attachment in state.attachments.values() {
        let Some(volume) = state.volumes.get(&attachment.volume) else {
            continue;
        };
        let what = match attachment.phase {
            AttachmentPhase::Revoking => "to be revoked",
            AttachmentPhase::Releasing => "to be released",
            AttachmentPhase::Detaching => "to be detached",
            AttachmentPhase::Attaching | AttachmentPhase::Attached => continue,
        };
        let mut part = format!(
            "volume {} is {what} on node {}",
            volume.name, attachment.node
        );
        if let Some(trouble) = &attachment.trouble {
            part.push_str(": ");
            part.push_str(&trouble.message);
        }
        parts.push(part);
    }
    parts.join("; ")
}
