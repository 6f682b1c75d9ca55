// SPDX-License-Identifier: Apache-2.0
//! The grant of a resumed actor, from its records alone: the same words at every
//! repeat and after every restart.

use super::{lifecycle::State, record::ActorPhase};
use crate::model::{Grant, GrantActor, GrantVolume};

/// The version of the grant's format.
const VERSION: u32 = 1;

/// The current word; none while the actor is not resumed.
pub(super) fn of(state: &State) -> Option<Grant> {
    let actor = state.actor.as_ref()?;
    let placement = actor.placement.as_ref()?;
    if actor.phase != ActorPhase::Resumed {
        return None;
    }
    let mut volumes = Vec::new();
    for volume in state.volumes_by_name() {
        if volume.unbound {
            continue;
        }
        let at = (volume.uid.clone(), placement.node.clone());
        let attachment = state.attachments.get(&at)?;
        // Its release will not be awaited, so nothing may be published by it.
        if attachment.fenced {
            return None;
        }
        volumes.push(GrantVolume {
            name: volume.name.clone(),
            uid: volume.uid.clone(),
            generation: volume.generation,
            driver: volume.driver.clone(),
            volume_id: volume.volume_id.clone(),
            volume_mode: volume.create.volume_mode,
            fs_type: volume.create.fs_type.clone(),
            access_mode: volume.create.access_mode,
            mount_flags: volume.create.mount_flags.clone(),
            mount_group: volume.create.mount_group.clone(),
            secret_refs: volume
                .secret_refs
                .iter()
                .filter(|(use_, _)| use_.is_of_node())
                .map(|(use_, secret)| (*use_, secret.clone()))
                .collect(),
            volume_context: volume.volume_context.0.clone(),
            publish_context: attachment.publish_context.0.clone(),
        });
    }
    Some(Grant {
        version: VERSION,
        actor: GrantActor {
            namespace: actor.actor.namespace.clone(),
            name: actor.actor.name.clone(),
            uid: actor.uid.clone(),
        },
        node: placement.node.clone(),
        audience: placement.audience.clone(),
        not_after: placement.not_after,
        self_contained: false,
        volumes,
        mounts: placement.mounts.clone(),
        devices: placement.devices.clone(),
    })
}
