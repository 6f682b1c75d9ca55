// SPDX-License-Identifier: Apache-2.0
//! `actor suspend`, `crash` and `delete`: the ways in which a grant is over.

use jiff::Timestamp;

use super::{actor_of, conflict};
use crate::{
    control::{
        lifecycle::{State, settle},
        record::{ActorPhase, AttachmentPhase, End, LastEnd},
    },
    error::{Error, Result},
};

/// Suspends the actor: the generation is over from here on.
pub fn suspend(state: &mut State, now: Timestamp) -> Result<()> {
    let actor = actor_of(state)?;
    if matches!(actor.phase, ActorPhase::Resuming | ActorPhase::Resumed) {
        end(state, End::Suspended, now);
    }
    Ok(())
}

/// The platform says that the actor died: as suspend, and remembered as that.
///
/// One that is being suspended died before its platform was done with it.
pub fn crash(state: &mut State, now: Timestamp) -> Result<()> {
    let actor = actor_of(state)?;
    let crashed = actor.last_end.filter(|e| e.how == End::Crashed);
    match actor.phase {
        ActorPhase::Resuming | ActorPhase::Resumed => end(state, End::Crashed, now),
        ActorPhase::Suspending => {
            let how = End::Crashed;
            actor.last_end = crashed.or(Some(LastEnd { how, at: now }));
        }
        ActorPhase::Suspended if crashed.is_some() => {}
        ActorPhase::Suspended => {
            return Err(Error::precondition(format!(
                "actor {} is suspended: only one that is resumed can crash",
                actor.actor
            )));
        }
        ActorPhase::Deleting => return Err(conflict(actor, "", "nothing of it runs any more")),
    }
    Ok(())
}

fn end(state: &mut State, how: End, at: Timestamp) {
    if let Some(actor) = &mut state.actor {
        actor.phase = ActorPhase::Suspending;
        actor.last_end = Some(LastEnd { how, at });
    }
    for volume in state.volumes.values_mut() {
        volume.revoked = volume.generation;
    }
    for attachment in state.attachments.values_mut() {
        attachment.phase = AttachmentPhase::Revoking;
        attachment.lost = false;
        attachment.trouble = None;
    }
    settle(state);
}

/// Deletes the actor, when it is suspended. A resumed one is refused, and one
/// that is being resumed. A resume that stopped at a final no is called off.
pub fn delete(state: &mut State, now: Timestamp) -> Result<()> {
    let stopped = has_stopped(state);
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
        ActorPhase::Resuming if stopped => {
            actor.deletion = Some(now);
            end(state, End::Suspended, now);
            return Ok(());
        }
        ActorPhase::Resuming => return Err(conflict(actor, "", "suspend it first")),
        ActorPhase::Deleting => return Ok(()),
        ActorPhase::Suspended => actor.phase = ActorPhase::Deleting,
        ActorPhase::Suspending => {}
    }
    actor.deletion.get_or_insert(now);
    settle(state);
    Ok(())
}

/// Whether something that a resume needs is not tried again by itself.
fn has_stopped(state: &State) -> bool {
    let attachments = state.attachments.values();
    let troubles = state.bound().map(|v| &v.trouble);
    let mut troubles = troubles.chain(attachments.map(|a| &a.trouble));
    troubles.any(|t| t.as_ref().is_some_and(|t| t.next_try.is_none()))
}
