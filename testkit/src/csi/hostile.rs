// SPDX-License-Identifier: Apache-2.0
//! Answers that no driver should give: what is done is right, what is said of it is not.

use std::collections::{BTreeMap, HashMap};

use actor_volumes::proto::csi as wire;
use serde::Deserialize;

/// What is said in the place of what is so; none: what is so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hostile {
    /// The id of a new volume.
    pub volume_id: Option<String>,
    /// Its volume_context.
    pub volume_context: Option<BTreeMap<String, String>>,
    /// Its accessible_topology, one place.
    pub volume_topology: Option<BTreeMap<String, String>>,
    /// The publish_context of an attachment.
    pub publish_context: Option<BTreeMap<String, String>>,
    /// NodeGetInfo: the node id.
    pub node_id: Option<String>,
    /// NodeGetInfo: accessible_topology.
    pub node_topology: Option<BTreeMap<String, String>>,
    /// The message of every call that fails because it was told to.
    pub message: Option<String>,
}

fn as_map(of: &BTreeMap<String, String>) -> HashMap<String, String> {
    of.clone().into_iter().collect()
}

impl Hostile {
    /// Of CreateVolume.
    pub(super) fn volume(&self, mut volume: wire::Volume) -> wire::Volume {
        if let Some(id) = &self.volume_id {
            volume.volume_id.clone_from(id);
        }
        if let Some(context) = &self.volume_context {
            volume.volume_context = as_map(context);
        }
        if let Some(segments) = &self.volume_topology {
            let segments = as_map(segments);
            volume.accessible_topology = vec![wire::Topology { segments }];
        }
        volume
    }

    /// Of ControllerPublishVolume.
    pub(super) fn publish_context(
        &self,
        context: HashMap<String, String>,
    ) -> HashMap<String, String> {
        self.publish_context.as_ref().map_or(context, as_map)
    }

    /// Of NodeGetInfo.
    pub(super) fn node(&self, mut info: wire::NodeGetInfoResponse) -> wire::NodeGetInfoResponse {
        if let Some(id) = &self.node_id {
            info.node_id.clone_from(id);
        }
        if let Some(segments) = &self.node_topology {
            let segments = as_map(segments);
            info.accessible_topology = Some(wire::Topology { segments });
        }
        info
    }
}
