// SPDX-License-Identifier: Apache-2.0
//! An actor that was just created, and its volumes.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::*;
use crate::{
    control::record::{CreateRequest, Opaque},
    csi::Accessibility,
    model::{AccessMode, Generation, VolumeMode},
};

pub fn actor() -> ActorRecord {
    ActorRecord {
        actor: "agents/a".parse().unwrap(),
        uid: "u".parse().unwrap(),
        template: "t".parse().unwrap(),
        template_revision: 1,
        phase: ActorPhase::Suspended,
        placement: None,
        deletion: None,
        last_end: None,
        by: None,
        requests: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

pub fn volume(n: usize, policy: ReclaimPolicy, first_consumer: bool) -> VolumeRecord {
    let uid: VolumeUid = format!("v{n}").parse().unwrap();
    VolumeRecord {
        actor: "agents/a".parse().unwrap(),
        actor_uid: "u".parse().unwrap(),
        name: format!("vol{n}").parse().unwrap(),
        introduced: 1,
        unbound: false,
        released: false,
        class: "c".into(),
        driver: "d.example".parse().unwrap(),
        create: CreateRequest {
            name: uid.csi_name(),
            required_bytes: 1,
            access_mode: AccessMode::SingleNodeSingleWriter,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            mount_flags: Vec::new(),
            mount_group: String::new(),
            parameters: Opaque::default(),
            accessibility: Accessibility::default(),
        },
        wanted_access_mode: AccessMode::SingleNodeSingleWriter,
        allowed_topologies: Vec::new(),
        secret_refs: Default::default(),
        prepared: false,
        reclaim_policy: policy,
        first_consumer,
        phase: VolumePhase::Intent,
        unsure: false,
        volume_id: String::new(),
        capacity_bytes: 0,
        volume_context: Opaque::default(),
        accessible_topology: Vec::new(),
        expansion: None,
        detached_from: BTreeSet::new(),
        leftover: None,
        generation: Generation(0),
        revoked: Generation(0),
        nodes: BTreeSet::new(),
        trouble: None,
        created_at: Timestamp::UNIX_EPOCH,
        uid,
    }
}
