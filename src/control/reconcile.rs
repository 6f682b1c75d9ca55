// SPDX-License-Identifier: Apache-2.0
//! Compares what is recorded as attached with what drivers list
//! (LIST_VOLUMES_PUBLISHED_NODES), and repairs the difference.
//!
//! A listing is a moment old when it is read, so that only what two listings in
//! a row say is acted upon, and never while a step of the volume is under way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    Control,
    cell::{Cell, blocking},
    index,
    lifecycle::{State, verb},
    record::{self, AttachmentPhase, NodeId, VolumePhase, VolumeRecord, key},
    store,
};
use crate::{
    csi::Driver,
    error::Result,
    model::{DriverName, Generation, NodeName, VolumeUid},
};

/// How often the difference was repaired since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// ControllerPublishVolume was sent again.
    pub attached_again: u64,
    /// ControllerUnpublishVolume was sent again.
    pub detached_again: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    attached_again: AtomicU64,
    detached_again: AtomicU64,
}

/// What a listing lacks, or has too much.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Suspicion {
    /// It is recorded as attached to this node, and the driver lists another word.
    Missing(VolumeUid, NodeName, Generation),
    /// It is attached nowhere, and the driver lists this node, from which it was
    /// detached.
    Leftover(VolumeUid, String, Generation),
}

/// How many listings in a row said so.
type Suspicions = BTreeMap<Suspicion, u32>;

/// By volume id, the driver's names of the nodes.
type Listing = HashMap<String, BTreeSet<String>>;

impl Control {
    /// How often attachments were repaired since the start.
    pub fn repairs(&self) -> Repairs {
        Repairs {
            attached_again: self.repairs.attached_again.load(Ordering::Relaxed),
            detached_again: self.repairs.detached_again.load(Ordering::Relaxed),
        }
    }

    /// Compares for ever. A driver that is slow to list is asked again when it
    /// has answered, and delays no other.
    pub(super) async fn reconcile(self: Arc<Self>) {
        let mut suspicions: HashMap<DriverName, Arc<Mutex<Suspicions>>> = HashMap::new();
        loop {
            tokio::time::sleep(self.settings.reconcile_interval).await;
            for driver in self.drivers.list() {
                let of_driver = suspicions.entry(driver.name().clone()).or_default();
                let Ok(turn) = of_driver.clone().try_lock_owned() else {
                    continue;
                };
                let (control, stop) = (self.clone(), self.stop.clone());
                self.tasks.spawn(async move {
                    stop.run_until_cancelled(control.compare(driver, turn))
                        .await;
                });
            }
        }
    }

    async fn compare(
        self: Arc<Self>,
        driver: Arc<Driver>,
        mut suspicions: OwnedMutexGuard<Suspicions>,
    ) {
        let listing = match list(&driver).await {
            Ok(Some(listing)) => listing,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(driver = %driver.name(), error = %error.full_message(), "cannot compare attachments with what the driver lists");
                // Nothing is known now: two listings in a row are to come.
                suspicions.clear();
                return;
            }
        };
        let cells = match self.cells_to_compare(driver.name(), &listing).await {
            Ok(cells) => cells,
            Err(error) => {
                tracing::warn!(driver = %driver.name(), error = %error.full_message(), "cannot compare attachments with what the driver lists");
                suspicions.clear();
                return;
            }
        };
        let mut now = Suspicions::new();
        for cell in cells {
            let found = match cell.lock().await {
                Ok(inner) => suspect(&cell, &inner.state, driver.name(), &listing),
                Err(_) => continue,
            };
            for suspicion in found {
                let before = suspicions.get(&suspicion).copied().unwrap_or_default();
                if before == 0 {
                    now.insert(suspicion, 1);
                    continue;
                }
                if let Err(error) = self.repair(&cell, &suspicion).await {
                    tracing::warn!(actor = %cell.name, error = %error.full_message(), "cannot record that an attachment is to be repaired");
                }
            }
        }
        *suspicions = now;
    }

    /// Those in memory, which have all attachments; and those of volumes that the
    /// driver lists as attached to a node from which they were detached.
    async fn cells_to_compare(
        self: &Arc<Self>,
        driver: &DriverName,
        listing: &Listing,
    ) -> Result<Vec<Arc<Cell>>> {
        let mut cells = self.cells.all();
        let attached = listing.iter().filter(|(_, nodes)| !nodes.is_empty());
        let attached: Vec<_> = attached.map(|(id, n)| (id.clone(), n.clone())).collect();
        let (store, driver) = (self.store.clone(), driver.clone());
        let suspects = blocking(&self.tasks, move || {
            let reader = store.snapshot()?;
            let mut actors = BTreeSet::new();
            for (id, nodes) in attached {
                let prefix = index::driver_volume(&driver, &id);
                store::each_entry(&*reader, &prefix, |entry, _| {
                    let key = format!("{}{}", key::VOLUMES, index::last_part(&entry));
                    let Some(stored) = reader.get(&key)? else {
                        return Ok(());
                    };
                    let volume: VolumeRecord = record::decode(&key, &stored.value)?;
                    if !volume.is_nobodys() && !nodes.is_disjoint(&volume.detached_from) {
                        actors.insert(volume.actor);
                    }
                    Ok(())
                })?;
            }
            Ok(actors)
        })
        .await?;
        let known: HashSet<_> = cells.iter().map(|c| c.name.clone()).collect();
        for actor in suspects.into_iter().filter(|a| !known.contains(a)) {
            // One that went meanwhile is none.
            cells.extend(self.cell(&actor).await.ok());
        }
        Ok(cells)
    }

    async fn repair(self: &Arc<Self>, cell: &Arc<Cell>, suspicion: &Suspicion) -> Result<()> {
        let repaired = self
            .change(cell, |state| {
                let uid = match suspicion {
                    Suspicion::Missing(uid, ..) | Suspicion::Leftover(uid, ..) => uid,
                };
                // A verb or a step may have come meanwhile.
                let same = state.volumes.get(uid).is_some_and(|volume| {
                    let generation = match suspicion {
                        Suspicion::Missing(_, _, g) | Suspicion::Leftover(_, _, g) => *g,
                    };
                    volume.generation == generation && is_at_rest(cell, state, volume)
                });
                if same {
                    match suspicion {
                        Suspicion::Missing(uid, node, _) => {
                            verb::attach_again(state, &(uid.clone(), node.clone()));
                        }
                        Suspicion::Leftover(uid, node_id, _) => {
                            verb::detach_again(state, uid, node_id);
                        }
                    }
                }
                Ok(same)
            })
            .await?;
        if !repaired {
            return Ok(());
        }
        match suspicion {
            Suspicion::Missing(volume, node, _) => {
                self.repairs.attached_again.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(actor = %cell.name, %volume, %node, "the driver lists a volume as not attached: attaching it again");
            }
            Suspicion::Leftover(volume, node_id, _) => {
                self.repairs.detached_again.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(actor = %cell.name, %volume, node_id, "the driver lists a volume as attached after its detach: detaching it again");
            }
        }
        Ok(())
    }
}

/// None: the driver does not tell which nodes have its volumes.
async fn list(driver: &Driver) -> Result<Option<Listing>> {
    let capabilities = driver.capabilities().await?;
    if !(capabilities.list_volumes && capabilities.list_published_nodes) {
        return Ok(None);
    }
    let volumes = driver.list_volumes().await?.into_iter();
    let nodes = volumes.map(|v| (v.volume_id, v.published_nodes.unwrap_or_default()));
    Ok(Some(nodes.collect()))
}

/// Whether nothing is under way, wanted or in doubt.
fn is_at_rest(cell: &Cell, state: &State, volume: &VolumeRecord) -> bool {
    let settled = |phase| matches!(phase, AttachmentPhase::Attached);
    volume.phase == VolumePhase::Ready
        && volume.leftover.is_none()
        && !cell.busy().contains(&volume.uid)
        && state
            .attachments_of(&volume.uid)
            .all(|a| settled(a.phase) && !a.lost)
}

fn suspect(cell: &Cell, state: &State, driver: &DriverName, listing: &Listing) -> Vec<Suspicion> {
    let mut found = Vec::new();
    let ours = |v: &&VolumeRecord| &v.driver == driver && is_at_rest(cell, state, v);
    for volume in state.volumes.values().filter(ours) {
        let nowhere = BTreeSet::new();
        let listed = listing.get(&volume.volume_id).unwrap_or(&nowhere);
        let mut is_attached = false;
        for attachment in state.attachments_of(&volume.uid) {
            is_attached = true;
            if let NodeId::Known(id) = &attachment.node_id
                && !listed.contains(id)
            {
                found.push(Suspicion::Missing(
                    volume.uid.clone(),
                    attachment.node.clone(),
                    volume.generation,
                ));
            }
        }
        if !is_attached {
            // Of a node that it was never detached from, no release was proven.
            let left = listed.intersection(&volume.detached_from).next();
            found.extend(
                left.map(|id| {
                    Suspicion::Leftover(volume.uid.clone(), id.clone(), volume.generation)
                }),
            );
        }
    }
    found
}
