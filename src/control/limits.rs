// SPDX-License-Identifier: Apache-2.0
//! How many volumes of a driver a node may have attached
//! (`max_volumes_per_node` of NodeGetInfo), across all actors.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard},
};

use super::{
    lifecycle::State,
    record::{AttachmentRecord, NodeId, VolumeRecord},
};
use crate::model::{ActorRef, DriverName, NodeName, VolumeUid};

type Bench = (DriverName, NodeName);

/// Who is attached where, or about to be.
#[derive(Default)]
pub(super) struct Limits {
    benches: Mutex<HashMap<Bench, Seats>>,
}

#[derive(Default)]
struct Seats {
    taken: BTreeSet<VolumeUid>,
    waiting: BTreeMap<VolumeUid, ActorRef>,
}

impl Limits {
    fn benches(&self) -> MutexGuard<'_, HashMap<Bench, Seats>> {
        // Every change is one call: a panic elsewhere leaves them whole.
        self.benches.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts what the records of an actor say is attached, or may be.
    pub(super) fn count(&self, state: &State) {
        let mut benches = self.benches();
        for (bench, volume) in seated(state) {
            benches.entry(bench).or_default().taken.insert(volume);
        }
    }

    /// Takes a seat; at the limit, gives the number of those that are taken and
    /// lets the volume wait for one. 0: there is no limit.
    pub(super) fn take(
        &self,
        volume: &VolumeRecord,
        node: &NodeName,
        limit: u64,
    ) -> Result<(), usize> {
        let bench = (volume.driver.clone(), node.clone());
        let mut benches = self.benches();
        let seats = benches.entry(bench).or_default();
        let full = limit > 0 && u64::try_from(seats.taken.len()).is_ok_and(|n| n >= limit);
        if full && !seats.taken.contains(&volume.uid) {
            seats
                .waiting
                .insert(volume.uid.clone(), volume.actor.clone());
            return Err(seats.taken.len());
        }
        seats.waiting.remove(&volume.uid);
        seats.taken.insert(volume.uid.clone());
        Ok(())
    }

    /// Frees the seats of what was detached; those who wait for one.
    pub(super) fn follow(&self, before: &State, after: &State) -> Vec<(ActorRef, VolumeUid)> {
        let gone = |a: &&AttachmentRecord| {
            !after
                .attachments
                .contains_key(&(a.volume.clone(), a.node.clone()))
        };
        let mut woken = Vec::new();
        for attachment in before.attachments.values().filter(gone) {
            let Some(volume) = before.volumes.get(&attachment.volume) else {
                continue;
            };
            let bench = (volume.driver.clone(), attachment.node.clone());
            let mut benches = self.benches();
            let Some(seats) = benches.get_mut(&bench) else {
                continue;
            };
            seats.waiting.remove(&volume.uid);
            if seats.taken.remove(&volume.uid) {
                let waiting = std::mem::take(&mut seats.waiting);
                woken.extend(waiting.into_iter().map(|(uid, actor)| (actor, uid)));
            }
        }
        woken
    }
}

/// The seats that the records of an actor stand for.
fn seated(state: &State) -> impl Iterator<Item = (Bench, VolumeUid)> {
    state.attachments.values().filter_map(|attachment| {
        let may_be = attachment.sent && matches!(attachment.node_id, NodeId::Known(_));
        let volume = state.volumes.get(&attachment.volume).filter(|_| may_be)?;
        let bench = (volume.driver.clone(), attachment.node.clone());
        Some((bench, volume.uid.clone()))
    })
}
