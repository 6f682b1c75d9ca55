// SPDX-License-Identifier: Apache-2.0
//! Retained volumes: found for actors that take them over, and `volume delete`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    cell::{Cell, blocking},
    create::Adopted,
    lifecycle::{State, verb},
    record::{self, VolumeRecord, key},
    store::Stored,
    view,
};
use crate::{
    error::{Error, Kind, Result},
    model::{DnsLabel, VolumeUid},
};

/// A volume that is to stand for one of an actor's, as it stands in the store.
pub(super) struct Adoption {
    name: DnsLabel,
    volume: VolumeRecord,
    stored: Stored,
}

impl Adoption {
    /// Puts it among the actor's volumes, where it can be.
    pub(super) fn apply(&self, state: &mut State) -> Result<()> {
        verb::adopt(state, &self.name, &self.volume)
    }

    /// The volume as it is nobody's.
    pub(super) fn volume(&self) -> &VolumeRecord {
        &self.volume
    }

    /// Where it stands: the batch that takes it in holds on to that.
    pub(super) fn record(&self) -> (String, Stored) {
        (key::volume(&self.volume.uid), self.stored.clone())
    }
}

impl Control {
    /// The volumes that are to be adopted. To be called with the catalog held: of
    /// two who want the same, the second finds it taken.
    pub(super) async fn retained(&self, wanted: &Adopted) -> Result<Vec<Adoption>> {
        let (store, wanted) = (self.store.clone(), wanted.clone());
        blocking(&self.tasks, move || {
            let mut found: Vec<Adoption> = Vec::new();
            for (name, uid) in wanted {
                if found.iter().any(|a| a.volume.uid == uid) {
                    return Err(Error::invalid(format!(
                        "volume {uid} is named twice: it can stand for one volume"
                    )));
                }
                let key = key::volume(&uid);
                let stored = store.get(&key)?.ok_or_else(|| {
                    Error::not_found(format!("volume {uid}, to be {name}, does not exist"))
                })?;
                let volume = record::decode(&key, &stored.value)?;
                found.push(Adoption {
                    name,
                    volume,
                    stored,
                });
            }
            Ok(found)
        })
        .await
    }

    /// Records that a retained volume is to be deleted; that follows in the
    /// background. With `wait`, returns when it is gone.
    pub async fn delete_volume(
        self: &Arc<Self>,
        uid: &VolumeUid,
        wait: Option<Duration>,
    ) -> Result<()> {
        let cell = self.release_volume(uid).await?;
        let Some(within) = wait else {
            return Ok(());
        };
        let gone = cell
            .wait(within, |inner| {
                inner.state.volumes.is_empty().then_some(Ok(()))
            })
            .await?;
        if gone.is_some() {
            return Ok(());
        }
        let message = view::message_of(&*cell.lock().await?);
        Err(Error::new(
            Kind::DeadlineExceeded,
            format!("volume {uid} is not deleted yet, it goes on in the background: {message}"),
        ))
    }

    async fn release_volume(self: &Arc<Self>, uid: &VolumeUid) -> Result<Arc<Cell>> {
        // Nobody adopts it meanwhile.
        let _standing = self.catalog.lock().await;
        let under_way = self.alone().get(uid).cloned();
        let cell = match under_way {
            Some(cell) => cell,
            None => {
                let key = key::volume(uid);
                let store = self.store.clone();
                let stored = blocking(&self.tasks, move || store.get(&key)).await?;
                let stored = stored
                    .ok_or_else(|| Error::not_found(format!("volume {uid} does not exist")))?;
                let volume: VolumeRecord = record::decode(&key::volume(uid), &stored.value)?;
                let (store, tasks) = (self.store.clone(), self.tasks.clone());
                Arc::new(Cell::of_volume(&volume, stored, store, tasks)?)
            }
        };
        self.enter(&cell);
        let released = self.change(&cell, |state| {
            // What is gone meanwhile is what was asked for.
            if state.volumes.is_empty() {
                return Ok(());
            }
            verb::release(state, uid)
        });
        if let Err(error) = released.await {
            // A write that failed may have been done all the same.
            let nobodys = |state: &State| state.volumes.values().any(|v| v.released);
            if cell.lock().await.is_ok_and(|inner| !nobodys(&inner.state)) {
                self.alone().remove(uid);
            }
            return Err(error);
        }
        Ok(cell)
    }
}
