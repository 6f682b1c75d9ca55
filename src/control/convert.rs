// SPDX-License-Identifier: Apache-2.0
//! Views as messages of the API.

use jiff::Timestamp;

use super::{
    orphans::Orphan,
    record::{AttachmentRecord, StorageClassRecord, Trouble},
    view::{ActorView, Applied, StatsView, TemplateStatus, TemplateView, VolumeView},
    watch::ActorEvent,
};
use crate::{
    csi::DriverStatus,
    model::{ReclaimPolicy, Topology},
    proto::api,
};

fn time(at: Timestamp) -> String {
    // Whole seconds: nobody reads more.
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

fn reclaim_policy(policy: ReclaimPolicy) -> String {
    match policy {
        ReclaimPolicy::Delete => "Delete",
        ReclaimPolicy::Retain => "Retain",
    }
    .to_owned()
}

pub(super) fn applied(applied: Applied) -> i32 {
    match applied {
        Applied::Created => api::Applied::Created,
        Applied::Changed => api::Applied::Changed,
        Applied::Unchanged => api::Applied::Unchanged,
    }
    .into()
}

pub(super) fn template(TemplateView(revision): TemplateView) -> api::Template {
    let template = &revision.template;
    api::Template {
        name: template.name.to_string(),
        revision: revision.revision,
        volumes: template
            .volumes
            .iter()
            .map(|v| api::TemplateVolume {
                name: v.name.to_string(),
                capacity_bytes: v.capacity.bytes(),
                storage_class: v.storage_class.to_string(),
            })
            .collect(),
        applied_at: time(revision.applied_at),
        manifest: template.to_manifest().to_string(),
    }
}

pub(super) fn template_status(status: TemplateStatus) -> api::TemplateStatus {
    let revisions = status.revisions.into_iter();
    api::TemplateStatus {
        name: status.name.to_string(),
        revision: status.revision,
        complete: status.complete,
        revisions: revisions
            .map(
                |(revision, applied_at, actors)| api::TemplateRevisionStatus {
                    revision,
                    applied_at: time(applied_at),
                    actors,
                },
            )
            .collect(),
        unbound: status.unbound.into_iter().map(volume).collect(),
        unbound_count: status.unbound_count,
        message: status.message,
    }
}

pub(super) fn storage_class(record: StorageClassRecord) -> api::StorageClass {
    let class = &record.class;
    api::StorageClass {
        name: class.name.to_string(),
        provisioner: class.provisioner.to_string(),
        reclaim_policy: reclaim_policy(class.reclaim_policy),
        volume_binding_mode: format!("{:?}", class.volume_binding_mode),
        applied_at: time(record.applied_at),
        manifest: class.to_manifest().to_string(),
    }
}

pub(super) fn driver(status: DriverStatus) -> api::Driver {
    api::Driver {
        name: status.name.to_string(),
        endpoint: status.endpoint,
        ready: status.ready,
        version: status.version,
        capabilities: status.capabilities,
        message: status.message,
    }
}

pub(super) fn actor(view: ActorView) -> api::Actor {
    let actor = view.actor;
    api::Actor {
        namespace: actor.actor.namespace.to_string(),
        name: actor.actor.name.to_string(),
        uid: actor.uid.to_string(),
        template: actor.template.to_string(),
        template_revision: actor.template_revision,
        phase: actor.phase.as_str().to_owned(),
        node: actor
            .placement
            .map(|p| p.node.to_string())
            .unwrap_or_default(),
        deleting: actor.deletion.is_some(),
        volumes: view.volumes.into_iter().map(volume).collect(),
        message: view.message,
        created_at: time(actor.created_at),
        last_end: actor
            .last_end
            .map(|e| e.how.as_str().to_owned())
            .unwrap_or_default(),
        last_end_at: actor.last_end.map(|e| time(e.at)).unwrap_or_default(),
    }
}

pub(super) fn actor_event(event: ActorEvent) -> api::ActorEvent {
    use api::actor_event::Kind;
    let (kind, about) = match event {
        ActorEvent::Present(view) => (Kind::Present, Some(actor(*view))),
        ActorEvent::Synced => (Kind::Synced, None),
        ActorEvent::Changed(view) => (Kind::Changed, Some(actor(*view))),
        ActorEvent::Gone(gone) => {
            let name_only = api::Actor {
                namespace: gone.namespace.to_string(),
                name: gone.name.to_string(),
                ..Default::default()
            };
            (Kind::Gone, Some(name_only))
        }
        ActorEvent::Gap => (Kind::Gap, None),
    };
    api::ActorEvent {
        kind: kind.into(),
        actor: about,
    }
}

pub(super) fn volume(view: VolumeView) -> api::Volume {
    let volume = view.volume;
    let in_doubt = |a: &AttachmentRecord| a.trouble.as_ref().is_some_and(Trouble::is_ambiguous);
    api::Volume {
        uncertain: volume.is_uncertain() || view.attachments.iter().any(|(a, _)| in_doubt(a)),
        volume_mode: format!("{:?}", volume.create.volume_mode),
        accessible_topology: volume.accessible_topology.iter().map(place).collect(),
        expansion: volume.expansion.map(|e| api::Expansion {
            wanted_bytes: e.wanted_bytes,
            message: view.expansion_message.unwrap_or_default(),
            trouble: e.trouble.map(trouble),
        }),
        usage: view.stats.map(usage),
        leftover_trouble: volume.leftover.and_then(|l| l.trouble).map(trouble),
        unbound: volume.unbound,
        introduced: volume.introduced,
        uid: volume.uid.to_string(),
        name: volume.name.to_string(),
        actor: volume.actor.to_string(),
        storage_class: volume.class,
        driver: volume.driver.to_string(),
        volume_id: volume.volume_id,
        phase: volume.phase.as_str().to_owned(),
        requested_bytes: volume.create.required_bytes,
        capacity_bytes: volume.capacity_bytes,
        access_mode: volume.create.access_mode.as_str().to_owned(),
        fs_type: volume.create.fs_type,
        reclaim_policy: reclaim_policy(volume.reclaim_policy),
        generation: volume.generation.0,
        revoked_generation: volume.revoked.0,
        attachments: view
            .attachments
            .into_iter()
            .map(|(record, holder)| attachment(record, holder))
            .collect(),
        trouble: volume.trouble.map(trouble),
        created_at: time(volume.created_at),
    }
}

fn attachment(record: AttachmentRecord, holder: Option<String>) -> api::Attachment {
    api::Attachment {
        node: record.node.to_string(),
        phase: record.phase.as_str().to_owned(),
        generation: record.generation.0,
        held_by: holder.unwrap_or_default(),
        trouble: record.trouble.map(trouble),
    }
}

fn trouble(trouble: Trouble) -> api::Trouble {
    api::Trouble {
        ambiguous: trouble.is_ambiguous(),
        message: trouble.message,
        attempts: trouble.attempts,
        last_try: time(trouble.last_try),
        next_try: trouble.next_try.map(time).unwrap_or_default(),
        in_doubt: trouble.in_doubt,
    }
}

/// Where a volume can be reached from, as people write it.
fn place(segments: &Topology) -> String {
    let parts: Vec<_> = segments.iter().map(|(k, v)| format!("{k}={v}")).collect();
    parts.join(",")
}

fn usage(view: StatsView) -> api::Usage {
    let stats = view.stats.unwrap_or_default();
    let (bytes, inodes) = (
        stats.bytes.unwrap_or_default(),
        stats.inodes.unwrap_or_default(),
    );
    let condition = stats.condition;
    api::Usage {
        total_bytes: bytes.total,
        used_bytes: bytes.used,
        available_bytes: bytes.available,
        total_inodes: inodes.total,
        used_inodes: inodes.used,
        abnormal: condition.as_ref().is_some_and(|c| c.abnormal),
        condition: condition.map(|c| c.message).unwrap_or_default(),
        message: view.message,
    }
}

pub(super) fn orphan(orphan: Orphan) -> api::Orphan {
    api::Orphan {
        driver: orphan.driver.to_string(),
        volume_id: orphan.volume_id,
        why: orphan.why,
        capacity_bytes: orphan.capacity_bytes,
        nodes_known: orphan.nodes.is_some(),
        nodes: orphan.nodes.unwrap_or_default().into_iter().collect(),
        deleted: orphan.deleted,
        message: orphan.message,
    }
}
