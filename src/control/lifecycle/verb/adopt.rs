// SPDX-License-Identifier: Apache-2.0
//! Retained volumes: taken over by an actor, or let go to be deleted.

use super::super::State;
use crate::{
    control::record::{VolumePhase, VolumeRecord},
    error::{Error, Result},
    model::{ActorRef, DnsLabel, VolumeUid},
};

/// Whether that volume can stand in for this one, which was never made.
pub fn check_adoption(wanted: &VolumeRecord, found: &VolumeRecord, by: &ActorRef) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::precondition(format!(
            "volume {} cannot become {} of actor {by}: {why}",
            found.uid, wanted.name
        )))
    };
    if found.phase != VolumePhase::Retained {
        return refuse(format!(
            "it is not retained (it is {}, of actor {})",
            found.phase.as_str(),
            found.actor
        ));
    }
    if found.actor.namespace != by.namespace {
        return refuse(format!("its namespace is {}", found.actor.namespace));
    }
    if found.driver != wanted.driver {
        return refuse(format!(
            "its driver is {}, not {}",
            found.driver, wanted.driver
        ));
    }
    if found.class != wanted.class {
        return refuse(format!(
            "its class is {}, not {}",
            found.class, wanted.class
        ));
    }
    if found.wanted_access_mode != wanted.wanted_access_mode {
        return refuse(format!(
            "its access mode is {}, not {}",
            found.wanted_access_mode.as_str(),
            wanted.wanted_access_mode.as_str()
        ));
    }
    if found.create.volume_mode != wanted.create.volume_mode {
        return refuse(format!(
            "its volume mode is {:?}, not {:?}",
            found.create.volume_mode, wanted.create.volume_mode
        ));
    }
    if found.has_bytes() < wanted.create.required_bytes {
        return refuse(format!(
            "it has {} bytes, {} are asked for",
            found.has_bytes(),
            wanted.create.required_bytes
        ));
    }
    Ok(())
}

/// Lets a retained volume stand for the actor's volume of that name, which was
/// never made. Its generation goes on where it was.
///
/// Done before: nothing changes.
pub fn adopt(state: &mut State, name: &DnsLabel, found: &VolumeRecord) -> Result<()> {
    let Some(actor) = &state.actor else {
        return Err(Error::not_found("the actor does not exist"));
    };
    let named = state.bound().find(|v| &v.name == name);
    let Some(wanted) = named.cloned() else {
        return Err(Error::invalid(format!(
            "actor {} has no volume {name}: its template names none",
            actor.actor
        )));
    };
    if wanted.uid == found.uid {
        return Ok(());
    }
    if !wanted.is_unmade() || state.attachments_of(&wanted.uid).next().is_some() {
        return Err(Error::precondition(format!(
            "volume {name} of actor {} is {} already: another one can only take its place before it is made",
            actor.actor, wanted.uid
        )));
    }
    check_adoption(&wanted, found, &actor.actor)?;
    let adopted = VolumeRecord {
        actor: actor.actor.clone(),
        actor_uid: actor.uid.clone(),
        name: wanted.name.clone(),
        introduced: wanted.introduced,
        unbound: false,
        reclaim_policy: wanted.reclaim_policy,
        phase: VolumePhase::Ready,
        ..found.clone()
    };
    state.volumes.remove(&wanted.uid);
    state.volumes.insert(adopted.uid.clone(), adopted);
    Ok(())
}

/// Lets a retained volume, which no actor owns, be deleted.
pub fn release(state: &mut State, uid: &VolumeUid) -> Result<()> {
    let Some(volume) = state.volumes.get_mut(uid) else {
        return Err(Error::not_found(format!("volume {uid} does not exist")));
    };
    match volume.phase {
        VolumePhase::Retained => {
            volume.phase = VolumePhase::Deleting;
            volume.released = true;
            volume.trouble = None;
            Ok(())
        }
        _ if volume.released => Ok(()),
        _ => Err(Error::precondition(format!(
            "volume {uid} belongs to actor {}: only a retained one can be deleted by itself",
            volume.actor
        ))),
    }
}
