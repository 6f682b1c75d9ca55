// SPDX-License-Identifier: Apache-2.0
//! Records as a control plane would have them.

use std::collections::BTreeSet;

use actor_volumes::{
    control::{
        record::{
            self, ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, CreateRequest,
            NodeId, Opaque, Placement, VolumePhase, VolumeRecord, key,
        },
        store::Write,
    },
    csi::Accessibility,
    model::{
        AccessMode, ActorUid, Audience, Generation, NodeName, ReclaimPolicy, VolumeMode, VolumeUid,
    },
};
use jiff::Timestamp;

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";
pub(crate) const NODE: &str = "node-a";

/// Writes what was not there before.
pub(crate) fn new<T: serde::Serialize>(key: String, record: &T) -> Write {
    Write {
        key,
        expect: None,
        value: Some(record::encode(record).unwrap()),
    }
}

/// An actor, its volumes and, if it is resumed, their attachments.
pub(crate) fn actor(name: &str, template: &str, volumes: usize, resumed: bool) -> Vec<Write> {
    let node: NodeName = NODE.parse().unwrap();
    let phase = match resumed {
        true => ActorPhase::Resumed,
        false => ActorPhase::Suspended,
    };
    let actor = ActorRecord {
        actor: format!("agents/{name}").parse().unwrap(),
        uid: ActorUid::generate(),
        template: template.parse().unwrap(),
        template_revision: 1,
        phase,
        placement: resumed.then(|| Placement {
            node: node.clone(),
            audience: Audience::Pod {
                namespace: "agents".parse().unwrap(),
                pod: None,
            },
            not_after: None,
            container: None,
            mounts: Vec::new(),
            devices: Vec::new(),
        }),
        deletion: None,
        last_end: None,
        by: None,
        requests: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
    };
    let mut batch = vec![new(key::actor(&actor.actor), &actor)];
    for n in 0..volumes {
        let volume = volume(&actor, n, resumed);
        batch.push(new(key::volume(&volume.uid), &volume));
        if resumed {
            let attachment = AttachmentRecord {
                volume: volume.uid.clone(),
                node: node.clone(),
                node_id: NodeId::Known(NODE.into()),
                publish_context: Opaque([("lun".to_owned(), "hush".to_owned())].into()),
                phase: AttachmentPhase::Attached,
                sent: true,
                lost: false,
                fenced: false,
                generation: Generation(1),
                trouble: None,
            };
            let key = key::attachment(&volume.uid, &node);
            batch.push(new(key, &attachment));
        }
    }
    batch
}

fn volume(actor: &ActorRecord, n: usize, resumed: bool) -> VolumeRecord {
    let uid = VolumeUid::generate();
    VolumeRecord {
        actor: actor.actor.clone(),
        actor_uid: actor.uid.clone(),
        name: format!("vol{n}").parse().unwrap(),
        introduced: 1,
        unbound: false,
        released: false,
        class: "pool".into(),
        driver: DRIVER.parse().unwrap(),
        create: CreateRequest {
            name: uid.csi_name(),
            required_bytes: 1 << 20,
            access_mode: AccessMode::SingleNodeSingleWriter,
            volume_mode: VolumeMode::Filesystem,
            fs_type: "ext4".into(),
            mount_flags: vec!["noatime".into()],
            mount_group: String::new(),
            parameters: Opaque::default(),
            accessibility: Accessibility::default(),
        },
        wanted_access_mode: AccessMode::SingleNodeSingleWriter,
        allowed_topologies: Vec::new(),
        secret_refs: Default::default(),
        prepared: true,
        reclaim_policy: ReclaimPolicy::Delete,
        first_consumer: false,
        phase: VolumePhase::Ready,
        unsure: false,
        volume_id: format!("pool/{uid}"),
        capacity_bytes: 1 << 20,
        volume_context: Opaque([("server".to_owned(), "hush".to_owned())].into()),
        accessible_topology: Vec::new(),
        expansion: None,
        detached_from: BTreeSet::new(),
        leftover: None,
        generation: Generation(u64::from(resumed)),
        revoked: Generation(0),
        nodes: match resumed {
            true => [NODE.parse().unwrap()].into(),
            false => BTreeSet::new(),
        },
        trouble: None,
        created_at: Timestamp::UNIX_EPOCH,
        uid,
    }
}
