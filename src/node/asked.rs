// SPDX-License-Identifier: Apache-2.0
//! What the control plane asks of the node agent.

use std::time::Duration;

use tokio::sync::watch;

use super::Agent;
use crate::{
    csi::VolumeStats,
    error::{Error, Result},
    model::{Generation, VolumeKey},
};

/// A volume of which something is on this node, or may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The volume.
    pub key: VolumeKey,
    /// The highest generation of an accepted grant.
    pub highest: Generation,
    /// Every generation up to this one is over.
    pub revoked: Generation,
    /// Who holds it, for people; none: nobody.
    pub held_by: Option<String>,
}

impl Agent {
    /// Every generation of the volume up to this one is over on this node.
    /// Durable when it returns.
    pub async fn revoke(&self, key: &VolumeKey, generation: Generation) -> Result<()> {
        self.volume(key)?.revoke(generation).await
    }

    /// When it returns no CSI call on the volume is in flight on this node, and
    /// none begins for so long, or until [`Agent::unquiet`]. A container that
    /// needs one waits, as long as its creation may.
    pub async fn quiet(&self, key: &VolumeKey, length: Duration) -> Result<()> {
        self.volume(key)?.quiet(length).await;
        Ok(())
    }

    /// Calls on the volume may begin again.
    pub async fn unquiet(&self, key: &VolumeKey) {
        if let Some(volume) = self.known(key) {
            volume.unquiet().await;
        }
    }

    /// Makes what is on the volume as large as the volume (NodeExpandVolume).
    /// Durable when it returns, also with an error. False: it is not published
    /// here; it is expanded once it is.
    pub async fn expand(&self, key: &VolumeKey, bytes: u64) -> Result<bool> {
        self.volume(key)?.expand(bytes).await
    }

    /// How much of the volume is used. None: the driver does not tell, or the
    /// volume is not published here.
    pub async fn stats(&self, key: &VolumeKey) -> Result<Option<VolumeStats>> {
        match self.known(key) {
            Some(volume) => volume.stats().await,
            None => Ok(None),
        }
    }

    /// What still holds the volume on this node, for people; none: its release
    /// is proven.
    pub async fn held(&self, key: &VolumeKey) -> Option<String> {
        let hash = key.hash();
        let volume = {
            let index = self.index();
            if let Some(why) = index.unreadable.get(&hash) {
                return Some(format!("its record cannot be read: {why}"));
            }
            index.volumes.get(&hash).cloned()
        };
        match volume {
            Some(volume) => volume.held().await,
            None => None,
        }
    }

    /// All volumes of which something is on this node, or may come by a grant that
    /// was accepted once.
    pub async fn holdings(&self) -> Vec<Holding> {
        let mut holdings = Vec::new();
        for volume in self.volumes() {
            let (highest, revoked) = {
                let record = &volume.state.lock().await.record;
                (record.highest, record.revoked)
            };
            let held_by = volume.held().await;
            if held_by.is_some() || highest > revoked {
                holdings.push(Holding {
                    key: volume.key.clone(),
                    highest,
                    revoked,
                    held_by,
                });
            }
        }
        holdings
    }

    /// Changes with every release.
    pub fn releases(&self) -> watch::Receiver<u64> {
        self.shared.released.subscribe()
    }

    /// The volume is deleted: its record goes.
    pub async fn forget(&self, key: &VolumeKey) -> Result<()> {
        if let Some(held) = self.held(key).await {
            return Err(Error::precondition(format!(
                "{key} is still held on this node: {held}"
            )));
        }
        let volume = self.index().volumes.remove(&key.hash());
        if volume.is_some() {
            self.shared.records.remove(key).await?;
        }
        Ok(())
    }
}
