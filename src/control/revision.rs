// SPDX-License-Identifier: Apache-2.0
//! What the newest revision of a template asks of an actor.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Control,
    cell::blocking,
    lifecycle::verb::{Revision, Wanted},
    record::{ActorRecord, CreateRequest, Opaque, TemplateRevision, VolumePhase, VolumeRecord},
    storage_class,
};
use crate::{
    api::{
        selinux_mount_flag,
        storage_class::{StorageClass, VolumeBindingMode},
        template::TemplateVolume,
    },
    csi::Accessibility,
    error::Result,
    model::{Generation, VolumeMode, VolumeUid},
};

impl Control {
    /// The revision for this actor. A volume that cannot be made stands in the
    /// way only of actors that have none.
    pub(super) async fn revision_for(
        &self,
        actor: &ActorRecord,
        revision: &TemplateRevision,
    ) -> Result<Revision> {
        let mut volumes = Vec::new();
        for wanted in &revision.template.volumes {
            let (store, name) = (self.store.clone(), wanted.storage_class.clone());
            let class = blocking(&self.tasks, move || storage_class::find(&*store, &name)).await?;
            let introduced = revision.introduced(&wanted.name);
            volumes.push(Wanted {
                name: wanted.name.clone(),
                introduced,
                bytes: wanted.capacity.bytes(),
                reclaim_policy: wanted
                    .reclaim_policy
                    .or(class.as_ref().map(|c| c.reclaim_policy)),
                new: self
                    .usable(wanted, class)
                    .map(|class| Box::new(new_volume(actor, wanted, introduced, &class))),
            });
        }
        Ok(Revision {
            number: revision.revision,
            volumes,
        })
    }

    fn usable(
        &self,
        wanted: &TemplateVolume,
        class: Option<StorageClass>,
    ) -> Result<StorageClass, String> {
        let class = class.ok_or_else(|| {
            format!(
                "storage class {} of volume {} does not exist: store it with `storageclass apply`",
                wanted.storage_class, wanted.name
            )
        })?;
        match self.drivers.get(&class.provisioner) {
            Ok(_) => Ok(class),
            Err(unknown) => Err(format!(
                "storage class {} of volume {}: {unknown}",
                wanted.storage_class, wanted.name
            )),
        }
    }
}

fn new_volume(
    actor: &ActorRecord,
    wanted: &TemplateVolume,
    introduced: u64,
    class: &StorageClass,
) -> VolumeRecord {
    let uid = VolumeUid::generate();
    VolumeRecord {
        actor: actor.actor.clone(),
        actor_uid: actor.uid.clone(),
        name: wanted.name.clone(),
        introduced,
        unbound: false,
        released: false,
        class: wanted.storage_class.to_string(),
        driver: class.provisioner.clone(),
        create: new_request(&uid, wanted, class),
        wanted_access_mode: wanted.access_mode,
        allowed_topologies: class.allowed_topologies.clone(),
        secret_refs: class.secret_refs.clone(),
        prepared: false,
        reclaim_policy: wanted.reclaim_policy.unwrap_or(class.reclaim_policy),
        first_consumer: class.volume_binding_mode == VolumeBindingMode::WaitForFirstConsumer,
        phase: VolumePhase::Intent,
        unsure: false,
        volume_id: String::new(),
        capacity_bytes: 0,
        volume_context: Opaque::default(),
        accessible_topology: Vec::new(),
        expansion: None,
        detached_from: BTreeSet::new(),
        leftover: None,
        generation: Generation::default(),
        revoked: Generation::default(),
        nodes: BTreeSet::new(),
        trouble: None,
        created_at: Timestamp::now(),
        uid,
    }
}

/// The request as far as it is known before the driver was asked.
fn new_request(uid: &VolumeUid, wanted: &TemplateVolume, class: &StorageClass) -> CreateRequest {
    let mut request = CreateRequest {
        name: uid.csi_name(),
        required_bytes: wanted.capacity.bytes(),
        access_mode: wanted.access_mode,
        volume_mode: wanted.volume_mode,
        fs_type: String::new(),
        mount_flags: Vec::new(),
        mount_group: String::new(),
        parameters: Opaque(class.parameters.clone()),
        accessibility: Accessibility::default(),
    };
    // What the class says of file systems is not for raw block volumes.
    if wanted.volume_mode == VolumeMode::Filesystem {
        request.fs_type = if wanted.fs_type.is_empty() {
            class.fs_type.clone()
        } else {
            wanted.fs_type.clone()
        };
        request.mount_flags = class.mount_options.clone();
        let more = wanted.mount_options.iter().cloned();
        request.mount_flags.extend(more);
        let context = match wanted.selinux_context.as_str() {
            "" => &class.selinux_context,
            context => context,
        };
        if !context.is_empty() {
            request.mount_flags.push(selinux_mount_flag(context));
        }
        request.mount_group = wanted.fs_group.map_or_else(String::new, |g| g.to_string());
    }
    request
}
