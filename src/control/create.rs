// SPDX-License-Identifier: Apache-2.0
//! `actor create`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Control,
    cell::{Cell, Inner, blocking},
    lifecycle::{State, verb},
    record::{
        ActorPhase, ActorRecord, CreateRequest, Opaque, TemplateRevision, VolumePhase, VolumeRecord,
    },
    storage_class,
    view::{self, ActorView},
};
use crate::{
    api::{
        storage_class::{StorageClass, VolumeBindingMode},
        template::TemplateVolume,
    },
    csi::Accessibility,
    error::{Error, Kind, Result},
    model::{ActorRef, ActorUid, DnsLabel, Generation, VolumeMode, VolumeUid},
};

impl Control {
    /// Records the actor and its volumes; CreateVolume follows in the background.
    ///
    /// With `wait`, returns when the volumes are there.
    pub async fn create_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        template: &DnsLabel,
        wait: Option<Duration>,
    ) -> Result<ActorView> {
        let cell = self.record_actor(actor, template).await?;
        match wait {
            Some(within) => wait_for_volumes(&cell, within).await,
            None => {
                let inner = cell.lock().await?;
                view::actor_of(&inner).ok_or_else(|| super::missing(actor))
            }
        }
    }

    async fn record_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        template: &DnsLabel,
    ) -> Result<Arc<Cell>> {
        let _standing = self.catalog.lock().await;
        if let Ok(cell) = self.cell(actor) {
            let mut inner = cell.lock().await?;
            if let Some(there) = &inner.state.actor {
                check_same(there, template)?;
                let mut next = inner.state.clone();
                verb::try_again(&mut next);
                cell.commit(&mut inner, next).await?;
                self.drive(&cell, &mut inner);
                drop(inner);
                return Ok(cell);
            }
        }
        let revision = self.template(template, 0).await?.0;
        let state = self.new_state(actor, revision).await?;
        // Only a holder of the catalog makes cells: nobody else makes this one.
        let cell = Arc::new(Cell::empty(
            actor.clone(),
            self.store.clone(),
            self.tasks.clone(),
        ));
        let mut inner = cell.lock().await?;
        cell.commit(&mut inner, state).await?;
        self.cells().insert(actor.clone(), cell.clone());
        tracing::info!(actor = %actor, template = %template, "actor created");
        self.drive(&cell, &mut inner);
        drop(inner);
        Ok(cell)
    }

    /// The records of a new actor.
    async fn new_state(&self, actor: &ActorRef, revision: TemplateRevision) -> Result<State> {
        let record = ActorRecord {
            actor: actor.clone(),
            uid: ActorUid::generate(),
            template: revision.template.name.clone(),
            template_revision: revision.revision,
            phase: ActorPhase::Suspended,
            placement: None,
            deletion: None,
            last_end: None,
            by: None,
            requests: Vec::new(),
            created_at: Timestamp::now(),
        };
        let mut volumes = BTreeMap::new();
        for wanted in &revision.template.volumes {
            let (store, name) = (self.store.clone(), wanted.storage_class.to_string());
            let class = blocking(&self.tasks, move || storage_class::find(&*store, &name)).await?;
            let class = class.ok_or_else(|| {
                Error::precondition(format!(
                    "storage class {} of volume {} does not exist: store it with `storageclass apply`",
                    wanted.storage_class, wanted.name
                ))
            })?;
            if let Err(unknown) = self.drivers.get(&class.provisioner) {
                return Err(Error::precondition(format!(
                    "storage class {} of volume {}: {unknown}",
                    wanted.storage_class, wanted.name
                )));
            }
            let volume = new_volume(&record, wanted, &class);
            volumes.insert(volume.uid.clone(), volume);
        }
        Ok(State {
            actor: Some(record),
            volumes,
            attachments: BTreeMap::new(),
        })
    }
}

fn check_same(there: &ActorRecord, template: &DnsLabel) -> Result<()> {
    let name = &there.actor;
    if there.deletion.is_some() {
        return Err(Error::aborted(format!(
            "actor {name} is still being deleted: try again"
        )));
    }
    if &there.template != template {
        return Err(Error::already_exists(format!(
            "actor {name} exists with template {}, not {template}",
            there.template
        )));
    }
    Ok(())
}

fn new_volume(actor: &ActorRecord, wanted: &TemplateVolume, class: &StorageClass) -> VolumeRecord {
    let uid = VolumeUid::generate();
    VolumeRecord {
        actor: actor.actor.clone(),
        actor_uid: actor.uid.clone(),
        name: wanted.name.clone(),
        introduced: 1,
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
        created_at: actor.created_at,
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
        request.mount_group = wanted.fs_group.map_or_else(String::new, |g| g.to_string());
    }
    request
}

async fn wait_for_volumes(cell: &Cell, within: Duration) -> Result<ActorView> {
    let answer = cell
        .wait(within, |inner| {
            let Some(view) = view::actor_of(inner) else {
                return Some(Err(super::missing(&cell.name)));
            };
            if let Some(refused) = refused_volume(inner) {
                return Some(Err(refused));
            }
            let there = |v: &VolumeRecord| match v.phase {
                VolumePhase::Intent => v.first_consumer,
                phase => phase == VolumePhase::Ready,
            };
            let all = inner.state.volumes.values().all(there);
            all.then_some(Ok(view))
        })
        .await?;
    match answer {
        Some(view) => Ok(view),
        None => Err(not_in_time(&*cell.lock().await?, "created")),
    }
}

/// The error of a volume whose driver said no.
pub(super) fn refused_volume(inner: &Inner) -> Option<Error> {
    let state = &inner.state;
    let actor = &state.actor.as_ref()?.actor;
    state.volumes_by_name().into_iter().find_map(|volume| {
        let mut troubles = volume.trouble.iter().chain(
            state
                .attachments_of(&volume.uid)
                .filter_map(|a| a.trouble.as_ref()),
        );
        let stopped = troubles.find(|t| t.next_try.is_none())?;
        Some(Error::precondition(format!(
            "volume {} of actor {actor}: {}",
            volume.name, stopped.message
        )))
    })
}

/// The error of volumes that were not there in time.
pub(super) fn not_in_time(inner: &Inner, what: &str) -> Error {
    let state = &inner.state;
    let Some(actor) = state.actor.as_ref() else {
        return Error::not_found("the actor does not exist any more");
    };
    let message = view::message_of(inner);
    if !message.is_empty() {
        // A limit is told for what it is; all else may pass.
        let mut troubles = state
            .attachments
            .values()
            .filter_map(|a| a.trouble.as_ref());
        let limit = Kind::ResourceExhausted;
        let kind = if troubles.any(|t| t.code == limit.code()) {
            limit
        } else {
            Kind::Unavailable
        };
        return Error::new(
            kind,
            format!("actor {} is not {what} yet: {message}", actor.actor),
        );
    }
    let names: Vec<_> = state
        .volumes_by_name()
        .into_iter()
        .filter(|v| {
            let mut attachments = state.attachments_of(&v.uid);
            v.phase != VolumePhase::Ready
                || attachments.any(|a| a.phase != super::record::AttachmentPhase::Attached)
        })
        .map(|v| v.name.to_string())
        .collect();
    Error::unavailable(format!(
        "actor {} is not {what} yet: its driver has not answered for {}",
        actor.actor,
        names.join(", ")
    ))
}
