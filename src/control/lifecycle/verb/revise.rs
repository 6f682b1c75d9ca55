// SPDX-License-Identifier: Apache-2.0
//! An actor moves to another revision of its template.

use super::{actor_of, conflict};
use crate::{
    control::{
        lifecycle::{State, let_go},
        record::{ActorPhase, Expansion, VolumePhase, VolumeRecord},
    },
    error::{Error, Result},
    model::{DnsLabel, ReclaimPolicy},
};

/// What a revision of a template asks of an actor.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// Its volumes.
    pub volumes: Vec<Wanted>,
}

/// A volume that a revision names.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: DnsLabel,
    /// The revision in which that name came in.
    pub introduced: u64,
    /// The least size.
    pub bytes: u64,
    /// What becomes of it with its actor; none: that stays as it is.
    pub reclaim_policy: Option<ReclaimPolicy>,
    /// The record of one that is not there yet, or why there can be none.
    pub new: Result<Box<VolumeRecord>, String>,
}

/// `actor update`: moves a suspended actor.
pub fn update(state: &mut State, to: &Revision) -> Result<()> {
    let actor = actor_of(state)?;
    if actor.template_revision >= to.number && actor.deletion.is_none() {
        return Ok(());
    }
    match actor.phase {
        ActorPhase::Suspended => revise(state, to),
        ActorPhase::Resumed => Err(Error::precondition(format!(
            "actor {} is resumed: suspend it first, or leave it: it moves to the newest revision when it is resumed next",
            actor.actor
        ))),
        _ => Err(conflict(actor, "", "try again when that is done")),
    }
}

/// Moves an actor that is attached nowhere: volumes are bound by name and by the
/// revision in which the name came in. One never moves back: to roll back is a
/// new revision.
pub fn revise(state: &mut State, to: &Revision) -> Result<()> {
    let actor = actor_of(state)?;
    if actor.template_revision >= to.number {
        return Ok(());
    }
    actor.template_revision = to.number;
    let name = actor.actor.clone();
    let mut bound = Vec::new();
    for wanted in &to.volumes {
        let there = state.volumes.values_mut().find(|v| {
            v.name == wanted.name
                && v.introduced == wanted.introduced
                && !matches!(
                    v.phase,
                    VolumePhase::Deleting | VolumePhase::Gone | VolumePhase::Retained
                )
        });
        if let Some(volume) = there {
            volume.unbound = false;
            volume.reclaim_policy = wanted.reclaim_policy.unwrap_or(volume.reclaim_policy);
            grow(volume, wanted.bytes);
            bound.push(volume.uid.clone());
            continue;
        }
        match &wanted.new {
            Ok(new) => {
                bound.push(new.uid.clone());
                state.volumes.insert(new.uid.clone(), (**new).clone());
            }
            Err(why) => return Err(Error::precondition(format!("actor {name}: {why}"))),
        }
    }
    state.volumes.retain(|uid, volume| {
        volume.unbound |= !bound.contains(uid);
        !(volume.unbound && volume.is_unmade())
    });
    Ok(())
}

fn grow(volume: &mut VolumeRecord, bytes: u64) {
    if bytes <= volume.has_bytes() {
        return;
    }
    if volume.is_unmade() {
        // Nothing was sent: it is asked for as it is wanted now.
        volume.create.required_bytes = bytes;
        volume.prepared = false;
        return;
    }
    match &mut volume.expansion {
        Some(under_way) if under_way.wanted_bytes >= bytes => {}
        Some(under_way) => {
            under_way.wanted_bytes = bytes;
            under_way.controller_done = false;
            under_way.trouble = None;
        }
        None => volume.expansion = Some(Expansion::to(bytes)),
    }
}

/// Lets go of volumes that the template lacks and that come back no more.
pub fn retire(state: &mut State, is_over: impl Fn(&DnsLabel, u64) -> bool) {
    let State {
        volumes,
        attachments,
        ..
    } = state;
    volumes.retain(|uid, volume| {
        let attached = attachments.keys().any(|(v, _)| v == uid);
        let over = volume.unbound && !attached && is_over(&volume.name, volume.introduced);
        !over || let_go(volume)
    });
}
