// SPDX-License-Identifier: Apache-2.0
//! What the verbs change in the records of an actor. Repeating one is harmless.

use jiff::Timestamp;

use super::{State, settle};
use crate::{
    control::record::{
        ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, NodeId, Opaque, Placement,
        Trouble, VolumePhase,
    },
    error::{Error, Result},
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
        volume.nodes.insert(node.clone());
        let attachment = AttachmentRecord {
            volume: volume.uid.clone(),
            node: node.clone(),
            node_id: NodeId::Unknown,
            publish_context: Opaque::default(),
            phase: AttachmentPhase::Attaching,
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
            volume.phase = VolumePhase::Creating;
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
