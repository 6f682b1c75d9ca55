// SPDX-License-Identifier: Apache-2.0
//! `actor ls` and `show`, `volume ls` and `show`, `driver ls`.

use super::{
    Control,
    cell::blocking,
    record::{self, ActorRecord, VolumeRecord, key},
    view::{self, ActorView, VolumeView},
};
use crate::{
    csi::DriverStatus,
    error::{Error, Result},
    model::{ActorRef, DnsLabel, VolumeUid},
};

impl Control {
    /// An actor with its volumes.
    pub async fn actor(&self, actor: &ActorRef) -> Result<ActorView> {
        let cell = self.cell(actor)?;
        let inner = cell.lock().await?;
        view::actor_of(&inner).ok_or_else(|| super::missing(actor))
    }

    /// A page of actors.
    pub async fn actors(
        &self,
        namespace: Option<&DnsLabel>,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<ActorView>, Option<String>)> {
        let prefix = match namespace {
            Some(namespace) => format!("{}{namespace}/", key::ACTORS),
            None => key::ACTORS.to_owned(),
        };
        let store = self.store.clone();
        let page = blocking(&self.tasks, move || {
            store.list(&prefix, after.as_deref(), limit)
        })
        .await?;
        let mut views = Vec::new();
        for (key, stored) in page.items {
            let record: ActorRecord = record::decode(&key, &stored.value)?;
            // One that went meanwhile is left out.
            if let Ok(view) = self.actor(&record.actor).await {
                views.push(view);
            }
        }
        Ok((views, page.next))
    }

    /// A volume.
    pub async fn volume(&self, uid: &VolumeUid) -> Result<VolumeView> {
        let key = key::volume(uid);
        let store = self.store.clone();
        let (key, found) = blocking(&self.tasks, move || {
            store.get(&key).map(|found| (key, found))
        })
        .await?;
        let stored =
            found.ok_or_else(|| Error::not_found(format!("volume {uid} does not exist")))?;
        self.show(record::decode(&key, &stored.value)?).await
    }

    /// A page of volumes, retained ones included.
    pub async fn volumes(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<VolumeView>, Option<String>)> {
        let store = self.store.clone();
        let page = blocking(&self.tasks, move || {
            store.list(key::VOLUMES, after.as_deref(), limit)
        })
        .await?;
        let mut views = Vec::new();
        for (key, stored) in page.items {
            views.push(self.show(record::decode(&key, &stored.value)?).await?);
        }
        Ok((views, page.next))
    }

    /// The volume as its actor's cell has it; a retained one as the store does.
    async fn show(&self, stored: VolumeRecord) -> Result<VolumeView> {
        if let Ok(cell) = self.cell(&stored.actor) {
            let inner = cell.lock().await?;
            if let Some(volume) = inner.state.volumes.get(&stored.uid) {
                return Ok(view::volume_of(&inner.state, &inner.holders, volume));
            }
        }
        Ok(VolumeView {
            volume: stored,
            attachments: Vec::new(),
        })
    }

    /// The drivers, by name.
    pub async fn driver_status(&self) -> Vec<DriverStatus> {
        self.drivers.statuses().await
    }
}
