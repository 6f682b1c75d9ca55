// SPDX-License-Identifier: Apache-2.0
//! `volume expand`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    cell::{Cell, blocking},
    lifecycle::verb,
    record::VolumeRecord,
    storage_class,
    view::{self, VolumeView},
};
use crate::{
    error::{Error, Kind, Result},
    model::VolumeUid,
};

impl Control {
    /// Records that the volume is to have at least so many bytes; the driver and
    /// the node follow in the background. With `wait`, returns when it has them.
    pub async fn expand_volume(
        self: &Arc<Self>,
        uid: &VolumeUid,
        bytes: u64,
        wait: Option<Duration>,
    ) -> Result<VolumeView> {
        let volume = self.stored_volume(uid).await?;
        let cell = self.cell(&volume.actor).await;
        let owned = async {
            let cell = cell.ok()?;
            let inner = cell.lock().await.ok()?;
            let ours = inner.state.volumes.contains_key(uid);
            drop(inner);
            ours.then_some(cell)
        };
        let cell = owned.await.ok_or_else(|| {
            Error::precondition(format!(
                "volume {uid} has outlived its actor: only volumes of actors can grow"
            ))
        })?;
        self.check_class(&volume).await?;
        self.change(&cell, |state| verb::expand(state, uid, bytes))
            .await?;
        if let Some(within) = wait {
            wait_until_large(&cell, uid, within).await?;
        }
        self.show(self.stored_volume(uid).await?).await
    }

    async fn check_class(&self, volume: &VolumeRecord) -> Result<()> {
        let (store, name) = (self.store.clone(), volume.class.clone());
        let class = blocking(&self.tasks, move || storage_class::find(&*store, &name)).await?;
        if class.is_some_and(|c| c.allow_volume_expansion) {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "storage class {} of volume {} does not allow it: apply the class with allowVolumeExpansion: true",
            volume.class, volume.uid
        )))
    }
}

async fn wait_until_large(cell: &Cell, uid: &VolumeUid, within: Duration) -> Result<()> {
    let done = cell
        .wait(within, |inner| {
            let Some(volume) = inner.state.volumes.get(uid) else {
                return Some(Err(Error::not_found(format!(
                    "volume {uid} does not exist any more"
                ))));
            };
            let Some(expansion) = &volume.expansion else {
                return Some(Ok(()));
            };
            let trouble = expansion.trouble.as_ref()?;
            let refused = trouble.next_try.is_none();
            refused.then(|| {
                Err(Error::new(
                    Kind::from_code(trouble.code),
                    format!("volume {uid} does not grow: {}", trouble.message),
                ))
            })
        })
        .await?;
    if done.is_some() {
        return Ok(());
    }
    let inner = cell.lock().await?;
    let volume = inner.state.volumes.get(uid);
    let message = volume.and_then(|v| view::expansion_message(&inner.state, v));
    Err(Error::deadline(format!(
        "volume {uid} has not grown yet, it goes on in the background: {}",
        message.unwrap_or_default()
    )))
}
