// SPDX-License-Identifier: Apache-2.0
//! What the verbs change in the records of an actor. Repeating one is harmless.

mod adopt;
mod end;
mod expand;
mod request;
mod revise;

pub use adopt::{adopt, check_adoption, release};
pub use end::{crash, delete, suspend};
pub use expand::expand;
pub use request::{Call, is_current, perform};
pub use revise::{Revision, Wanted, retire, revise, update};

use super::{State, settle};
use crate::{
    control::record::{
        ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, Leftover, NodeId, Opaque,
        Placement, Trouble, VolumePhase,
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

/// Which verb an actor is in the hands of, for people.
pub fn holder_of(actor: &ActorRecord) -> String {
    if let Some(by) = &actor.by {
        return by.to_string();
    }
    match actor.phase {
        _ if actor.deletion.is_some() => "delete",
        ActorPhase::Resuming | ActorPhase::Resumed => "resume",
        _ => "suspend",
    }
    .to_owned()
}

/// The refusal of a verb that comes while another one is under way.
fn conflict(actor: &ActorRecord, place: &str, what_to_do: &str) -> Error {
    let doing = match actor.phase {
        _ if actor.deletion.is_some() => "deleted",
        ActorPhase::Resuming | ActorPhase::Resumed => "resumed",
        _ => "suspended",
    };
    let place = if place.is_empty() {
        ""
    } else {
        &format!(" {place}")
    };
    Error::aborted(format!(
        "actor {} is being {doing}{place} by {}: {what_to_do}",
        actor.actor,
        holder_of(actor)
    ))
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
        (phase @ (ActorPhase::Resuming | ActorPhase::Resumed), Some(there)) => {
            if !there.is_for(&placement) {
                let what = format!("at another place, on node {}", there.node);
                return Err(match phase {
                    ActorPhase::Resuming => conflict(actor, &what, "suspend it first"),
                    _ => Error::precondition(format!(
                        "actor {name} is resumed on node {}, or for another pod or container, or until another time: suspend it first",
                        there.node
                    )),
                });
            }
        }
        (ActorPhase::Suspending, _) if actor.deletion.is_none() => {
            return Err(Error::aborted(format!(
                "actor {name} is still being suspended by {} ({}): try again",
                holder_of(actor),
                what_is_awaited(state)
            )));
        }
        _ => return Err(conflict(actor, "", "try again when it is gone")),
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
    // Those that the template lacks stay where they are: in no grant.
    for volume in state.volumes.values_mut().filter(|v| !v.unbound) {
        volume.generation = volume.generation.next();
        // What was not sent yet is asked for anew: the node may be another one.
        if volume.phase == VolumePhase::Intent {
            volume.prepared = false;
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

#[cfg(test)]
mod tests;
