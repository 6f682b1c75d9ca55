// SPDX-License-Identifier: Apache-2.0
//! ControllerExpandVolume.

use super::{Taken, at_node, called, driver, secrets};
use crate::{
    control::{
        Control,
        lifecycle::{Outcome, State},
        record::VolumeRecord,
    },
    csi::ControllerExpand,
    model::SecretUse,
};

pub(super) async fn expand(control: &Control, at: &State, volume: &VolumeRecord) -> Taken {
    let Some(expansion) = &volume.expansion else {
        return Ok(Outcome::Done);
    };
    let (driver, capabilities) = driver(control, volume).await?;
    // A driver without a part of the controller expands on the node, which is
    // online by its nature.
    let offline_only = capabilities.controller_expand && !capabilities.expand_online;
    if offline_only && at.attachments_of(&volume.uid).next().is_some() {
        return Ok(Outcome::OfflineOnly);
    }
    let request = ControllerExpand {
        volume_id: volume.volume_id.clone(),
        required_bytes: expansion.wanted_bytes,
        capability: volume.create.capability(),
        secrets: secrets(control, volume, SecretUse::ControllerExpand).await?,
    };
    let call = async { driver.controller_expand(&request).await.map_err(called) };
    let expanded = at_node::while_quiet(control, at, volume, call).await?;
    Ok(Outcome::Expanded {
        capacity_bytes: expanded.capacity_bytes,
        node_required: expanded.node_expansion_required,
    })
}
