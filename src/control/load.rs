// SPDX-License-Identifier: Apache-2.0
//! What is read at the start: the index, and the records of actors that are
//! active. Of the others, nothing but their numbers.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use tokio_util::task::TaskTracker;

use super::{
    cell::{Cell, load_standing},
    counts::Counts,
    index::{self, TemplateActor},
    record::{self, ActorRecord, VolumePhase, VolumeRecord, key},
    rollout,
    store::{self, Reader, Store},
};
use crate::{
    error::{Error, Result},
    model::{ActorRef, VolumeUid},
};

/// What a control plane begins with.
pub(super) struct Loaded {
    /// Of active actors, and of volumes that are being deleted without one.
    pub(super) cells: Vec<Cell>,
    /// The actors of every template.
    pub(super) rollouts: rollout::Index,
    /// All by phase.
    pub(super) counts: Counts,
}

/// Reads it, as it stands at one moment.
pub(super) fn load(store: &Arc<dyn Store>, tasks: &TaskTracker) -> Result<Loaded> {
    let reader = store.snapshot()?;
    let reader = &*reader;
    let (rollouts, counts) = (rollout::Index::default(), Counts::default());
    count(reader, &rollouts, &counts)?;
    let mut cells = Vec::new();
    for name in active(reader)? {
        let standing = load_standing(reader, &name)?;
        cells.push(Cell::loaded(name, store.clone(), tasks.clone(), standing)?);
    }
    store::each_entry(reader, index::OWNERLESS, |entry, phase| {
        if phase == VolumePhase::Retained.as_str() {
            return Ok(());
        }
        let key = format!("{}{}", key::VOLUMES, index::last_part(&entry));
        if let Some(stored) = reader.get(&key)? {
            let volume: VolumeRecord = record::decode(&key, &stored.value)?;
            let (store, tasks) = (store.clone(), tasks.clone());
            cells.push(Cell::of_volume(&volume, stored, store, tasks)?);
        }
        Ok(())
    })?;
    Ok(Loaded {
        cells,
        rollouts,
        counts,
    })
}

fn count(reader: &dyn Reader, rollouts: &rollout::Index, counts: &Counts) -> Result<()> {
    store::each_entry(reader, index::TEMPLATE_ACTORS, |key, told| {
        let entry = TemplateActor::read(&key, &told).ok_or_else(|| unreadable(&key))?;
        counts.actor(&entry.phase);
        if !entry.deleting {
            rollouts.count(&entry);
        }
        Ok(())
    })?;
    for prefix in [index::ACTOR_VOLUMES, index::OWNERLESS] {
        store::each_entry(reader, prefix, |_, phase| {
            counts.volume(&phase);
            Ok(())
        })?;
    }
    store::each_entry(reader, index::KEPT, |entry, _| {
        let name = index::actor_in(&entry).ok_or_else(|| unreadable(&entry))?;
        let key = key::actor(&name);
        if let Some(stored) = reader.get(&key)? {
            let actor: ActorRecord = record::decode(&key, &stored.value)?;
            if actor.deletion.is_none() {
                rollouts.keeps(&actor);
            }
        }
        Ok(())
    })
}

/// The actors that are active, and those of attachments, whatever they are: an
/// attachment is never left alone.
fn active(reader: &dyn Reader) -> Result<BTreeSet<ActorRef>> {
    let mut actors = BTreeSet::new();
    store::each_entry(reader, index::ACTIVE, |entry, _| {
        actors.insert(index::actor_in(&entry).ok_or_else(|| unreadable(&entry))?);
        Ok(())
    })?;
    let mut seen = HashSet::new();
    store::each_entry(reader, index::NODE_ATTACHMENTS, |entry, _| {
        seen.insert(index::last_part(&entry).to_owned());
        Ok(())
    })?;
    for uid in seen {
        let uid: VolumeUid = uid.parse()?;
        let key = key::volume(&uid);
        if let Some(stored) = reader.get(&key)? {
            let volume: VolumeRecord = record::decode(&key, &stored.value)?;
            if !volume.is_nobodys() {
                actors.insert(volume.actor);
            }
        }
    }
    Ok(actors)
}

fn unreadable(entry: &str) -> Error {
    Error::internal(format!(
        "index entry {entry} cannot be read: stop the daemon, then `actor-volumes store check --repair-indexes` makes the index anew"
    ))
}
