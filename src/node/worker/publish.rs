// SPDX-License-Identifier: Apache-2.0
//! NodePublishVolume, and what must be seen of it before anybody gets it.

use std::time::Instant;

use super::{Done, capability, make_dir};
use crate::{
    csi::{Driver, NodePublish},
    error::Result,
    host::crash::{self, CrashPoint},
    model::{Scope, SecretUse, VolumeMode},
    node::{Phase, Publication, proof::Seen, volume::Volume},
};

impl Volume {
    pub(super) async fn publish(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        if self.staging_is_lost().await? {
            return Ok(Done::Step);
        }
        let Some(publication) = self.publication(scope).await else {
            return Ok(Done::Step);
        };
        let refs = &publication.request.secret_refs;
        let secrets = self.shared.vault.read(refs, SecretUse::NodePublish).await?;
        let Some(usage) = self
            .intend(scope, |record, _| {
                if let Some(p) = record.publication_mut(scope) {
                    p.phase = Phase::Doing;
                }
            })
            .await?
        else {
            return Ok(Done::Step);
        };
        crash::hit(CrashPoint::PublishIntended);
        make_dir(self.shared.layout.publications(&self.key)).await?;
        let target = self.shared.layout.target(&self.key, scope);
        driver
            .node_publish(&NodePublish {
                volume_id: self.key.volume_id.clone(),
                capability: capability(&usage),
                publish_context: usage.publish_context,
                staging_path: self.shared.layout.staging(&self.key),
                target_path: target.clone(),
                read_only: publication.read_only,
                volume_context: usage.volume_context,
                secrets,
            })
            .await?;
        crash::hit(CrashPoint::PublishAnswered);
        let seen = self.see(target).await?;
        if let Err(broken) = self.check_published(&publication, &seen) {
            if seen.hollow {
                // What was staged was nothing: all of it is undone and made anew.
                self.commit(|record| {
                    if let Some(p) = record.publication_mut(scope) {
                        p.phase = Phase::Undoing;
                    }
                })
                .await;
            }
            return Err(broken);
        }
        self.give_to_group(driver, &publication, &seen).await?;
        let sub_paths = self.show_sub_paths(&publication, &seen).await?;
        let mount = seen.mount().cloned();
        self.commit(|record| {
            if let Some(p) = record.publication_mut(scope) {
                p.phase = Phase::Done;
                p.sub_paths = sub_paths;
                p.device = seen.device;
                p.file_system = mount.as_ref().map_or(String::new(), |m| m.fs_type.clone());
                p.identity = mount.map(|m| m.identity);
            }
        })
        .await;
        crash::hit(CrashPoint::PublishRecorded);
        let mut state = self.state.lock().await;
        state.fresh.insert(scope.clone(), Instant::now());
        Ok(Done::Step)
    }

    /// The driver's OK alone shows nothing: an empty directory in the volume's
    /// place would take the actor's writes (I7).
    fn check_published(&self, publication: &Publication, seen: &Seen) -> Result<()> {
        const RPC: &str = "NodePublishVolume";
        let target = self.shared.layout.target(&self.key, &publication.scope);
        let target = target.display();
        match publication.request.volume_mode {
            VolumeMode::Block if seen.device.is_none() => {
                Err(self.broken_promise(RPC, &format!("there is no block device at {target}")))
            }
            VolumeMode::Block => Ok(()),
            VolumeMode::Filesystem if seen.mounts.is_empty() => Err(self.broken_promise(
                RPC,
                &format!(
                    "nothing is mounted at {target}: does the node agent see the driver's mounts (propagation)?"
                ),
            )),
            VolumeMode::Filesystem if seen.hollow => Err(self.broken_promise(
                RPC,
                &format!(
                    "what is mounted at {target} is our own empty directory: the driver published the staging directory with nothing in it"
                ),
            )),
            VolumeMode::Filesystem => Ok(()),
        }
    }

    /// fsGroup, where the driver does not see to it.
    async fn give_to_group(
        &self,
        driver: &Driver,
        publication: &Publication,
        seen: &Seen,
    ) -> Result<()> {
        let group = &publication.request.mount_group;
        let Some(mount) = seen.mount() else {
            return Ok(());
        };
        if group.is_empty()
            || publication.read_only
            || publication.request.volume_mode == VolumeMode::Block
            || driver.capabilities().await?.volume_mount_group
        {
            return Ok(());
        }
        let place = self.shared.layout.place(&self.key, &publication.scope);
        self.shared.helpers.own(place, &mount.identity, group).await
    }
}
