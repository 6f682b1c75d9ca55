// SPDX-License-Identifier: Apache-2.0
//! `actor ls` and `show`, `volume ls` and `show`, `driver ls`.

use std::time::Duration;

use super::{
    Control,
    cell::blocking,
    record::{self, ActorRecord, AttachmentPhase, AttachmentRecord, VolumeRecord, key},
    view::{self, ActorView, StatsView, VolumeView},
};
use crate::{
    csi::DriverStatus,
    error::{Error, Result},
    model::{ActorRef, DnsLabel, NodeName, VolumeKey, VolumeUid},
};

/// How long whoever looks at a volume waits for its usage.
const STATS_WITHIN: Duration = Duration::from_secs(3);

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

    /// A volume, and how much of it is used where it is attached.
    pub async fn volume(&self, uid: &VolumeUid) -> Result<VolumeView> {
        let stored = self.stored_volume(uid).await?;
        let mut view = self.show(stored).await?;
        let attached = |a: &&(AttachmentRecord, _)| a.0.phase == AttachmentPhase::Attached;
        if let Some((attachment, _)) = view.attachments.iter().find(attached) {
            let node = attachment.node.clone();
            view.stats = Some(self.stats(&node, &view.volume.key()).await);
        }
        Ok(view)
    }

    async fn stats(&self, node: &NodeName, volume: &VolumeKey) -> StatsView {
        let asked = self.nodes.stats(node, volume);
        let without = |message: String| StatsView {
            stats: None,
            message,
        };
        match tokio::time::timeout(STATS_WITHIN, asked).await {
            Ok(Ok(Some(stats))) => StatsView {
                stats: Some(stats),
                message: String::new(),
            },
            Ok(Ok(None)) => without("the driver does not tell".into()),
            Ok(Err(error)) => without(error.full_message()),
            Err(_) => without(format!(
                "node {node} did not answer within {STATS_WITHIN:?}"
            )),
        }
    }

    pub(super) async fn stored_volume(&self, uid: &VolumeUid) -> Result<VolumeRecord> {
        let key = key::volume(uid);
        let store = self.store.clone();
        let (key, found) = blocking(&self.tasks, move || {
            store.get(&key).map(|found| (key, found))
        })
        .await?;
        let stored =
            found.ok_or_else(|| Error::not_found(format!("volume {uid} does not exist")))?;
        record::decode(&key, &stored.value)
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
    pub(super) async fn show(&self, stored: VolumeRecord) -> Result<VolumeView> {
        let alone = self.alone().get(&stored.uid).cloned();
        let cell = alone.map_or_else(|| self.cell(&stored.actor), Ok);
        if let Ok(cell) = cell {
            let inner = cell.lock().await?;
            if let Some(volume) = inner.state.volumes.get(&stored.uid) {
                return Ok(view::volume_of(&inner.state, &inner.holders, volume));
            }
        }
        Ok(VolumeView {
            volume: stored,
            attachments: Vec::new(),
            expansion_message: None,
            stats: None,
        })
    }

    /// The drivers, by name.
    pub async fn driver_status(&self) -> Vec<DriverStatus> {
        self.drivers.statuses().await
    }
}
