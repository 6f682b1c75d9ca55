// SPDX-License-Identifier: Apache-2.0
//! Requests and answers in our own words, and their form on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Capabilities;
use crate::{
    error::{Error, Result},
    model::{AccessMode, Topology, VolumeMode},
    proto::csi::{
        self as wire,
        volume_capability::{AccessType, BlockVolume, MountVolume, access_mode::Mode},
    },
    secret::Secrets,
};

/// How a volume is to be used (`VolumeCapability` of CSI).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCapability {
    /// The access mode that is wanted; what is sent depends on the driver
    /// (SINGLE_NODE_SINGLE_WRITER falls back to SINGLE_NODE_WRITER).
    pub access_mode: AccessMode,
    /// File system or block device.
    pub volume_mode: VolumeMode,
    /// Empty: the driver's choice.
    pub fs_type: String,
    /// Mount flags.
    pub mount_flags: Vec<String>,
    /// `volume_mount_group`, sent only to a driver that advertises
    /// VOLUME_MOUNT_GROUP; empty: none.
    pub mount_group: String,
}

/// From where a new volume must be reachable (`TopologyRequirement` of CSI);
/// sent only to a driver with VOLUME_ACCESSIBILITY_CONSTRAINTS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accessibility {
    /// From at least one of these; none: no requirement.
    pub requisite: Vec<Topology>,
    /// The better ones, best first; a part of `requisite`.
    pub preferred: Vec<Topology>,
}

/// A CreateVolume request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateVolume {
    /// The idempotency key.
    pub name: String,
    /// `capacity_range.required_bytes`
    pub required_bytes: u64,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Parameters of the class.
    pub parameters: BTreeMap<String, String>,
    /// From where it must be reachable.
    pub accessibility: Accessibility,
    /// Also for the DeleteVolume of a volume that is not what was asked for.
    pub secrets: Secrets,
}

/// What CreateVolume gave.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedVolume {
    /// The driver's id.
    pub volume_id: String,
    /// 0: unknown.
    pub capacity_bytes: u64,
    /// Passed back unchanged in every later call.
    pub volume_context: BTreeMap<String, String>,
    /// From where it can be reached: any of these; none: from everywhere.
    pub accessible_topology: Vec<Topology>,
}

/// A DeleteVolume request.
#[derive(Debug, Clone)]
pub struct DeleteVolume {
    /// The driver's id.
    pub volume_id: String,
    /// Those of the provisioner.
    pub secrets: Secrets,
}

/// A ControllerPublishVolume request.
#[derive(Clone)]
pub struct ControllerPublish {
    /// The driver's id.
    pub volume_id: String,
    /// `node_id` of NodeGetInfo.
    pub node_id: String,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Sent only to a driver with PUBLISH_READONLY.
    pub read_only: bool,
    /// Of CreateVolumeResponse.
    pub volume_context: BTreeMap<String, String>,
    /// Those of the controller's publish.
    pub secrets: Secrets,
}

/// A ControllerUnpublishVolume request.
#[derive(Debug, Clone)]
pub struct ControllerUnpublish {
    /// The driver's id.
    pub volume_id: String,
    /// `node_id` of the ControllerPublishVolume that it negates.
    pub node_id: String,
    /// Those of the ControllerPublishVolume.
    pub secrets: Secrets,
}

/// A ControllerExpandVolume request.
#[derive(Debug, Clone)]
pub struct ControllerExpand {
    /// The driver's id.
    pub volume_id: String,
    /// `capacity_range.required_bytes`
    pub required_bytes: u64,
    /// How it is used.
    pub capability: VolumeCapability,
    /// Those of the controller's expand.
    pub secrets: Secrets,
}

/// What ControllerExpandVolume gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpandedVolume {
    /// The size now.
    pub capacity_bytes: u64,
    /// Whether NodeExpandVolume must follow.
    pub node_expansion_required: bool,
}

/// A volume of ListVolumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVolume {
    /// The driver's id.
    pub volume_id: String,
    /// 0: unknown.
    pub capacity_bytes: u64,
    /// The `node_id`s it is attached to; none: the driver does not tell
    /// (LIST_VOLUMES_PUBLISHED_NODES).
    pub published_nodes: Option<BTreeSet<String>>,
    /// Its condition, where the driver tells (VOLUME_CONDITION).
    pub condition: Option<Condition>,
}

/// `VolumeCondition` of CSI: for people alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether the driver takes it for damaged.
    pub abnormal: bool,
    /// The driver's words, fit for people.
    pub message: String,
}

/// What NodeGetInfo gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The driver's name of the node; empty where it has none and needs none.
    pub node_id: String,
    /// How many volumes may be attached (ControllerPublishVolume); 0: no limit.
    pub max_volumes: u64,
    /// Where the node is; empty: the driver has no topology.
    pub topology: Topology,
}

/// A NodeStageVolume request.
#[derive(Clone)]
pub struct NodeStage {
    /// The driver's id.
    pub volume_id: String,
    /// Of ControllerPublishVolumeResponse.
    pub publish_context: BTreeMap<String, String>,
    /// The staging path; the directory exists.
    pub staging_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Of CreateVolumeResponse.
    pub volume_context: BTreeMap<String, String>,
    /// Those of the stage.
    pub secrets: Secrets,
}

/// A NodePublishVolume request.
#[derive(Clone)]
pub struct NodePublish {
    /// The driver's id.
    pub volume_id: String,
    /// Of ControllerPublishVolumeResponse.
    pub publish_context: BTreeMap<String, String>,
    /// The staging path; sent only to a driver that stages.
    pub staging_path: PathBuf,
    /// The target path; its parent exists, the driver makes it.
    pub target_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Whether the mount refuses writes.
    pub read_only: bool,
    /// Of CreateVolumeResponse.
    pub volume_context: BTreeMap<String, String>,
    /// Those of the publish.
    pub secrets: Secrets,
}

/// A NodeExpandVolume request.
#[derive(Clone)]
pub struct NodeExpand {
    /// The driver's id.
    pub volume_id: String,
    /// A path where it is staged or published.
    pub volume_path: PathBuf,
    /// The staging path; sent only to a driver that stages.
    pub staging_path: PathBuf,
    /// `capacity_range.required_bytes`
    pub required_bytes: u64,
    /// How it is used.
    pub capability: VolumeCapability,
    /// Those of the node's expand.
    pub secrets: Secrets,
}

/// A NodeGetVolumeStats request.
#[derive(Debug, Clone)]
pub struct NodeStats {
    /// The driver's id.
    pub volume_id: String,
    /// A path where it is staged or published.
    pub volume_path: PathBuf,
    /// The staging path; sent only to a driver that stages.
    pub staging_path: PathBuf,
}

/// What NodeGetVolumeStats gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStats {
    /// In bytes; none: the driver does not tell.
    pub bytes: Option<Usage>,
    /// In inodes; none: the driver does not tell.
    pub inodes: Option<Usage>,
    /// Its condition, where the driver tells (VOLUME_CONDITION).
    pub condition: Option<Condition>,
}

/// How much of something is used. 0 stands for unknown in `available` and `used`
/// of a block volume (CSI spec, VolumeUsage).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All of it.
    pub total: u64,
    /// What is left for use.
    pub available: u64,
    /// What is in use.
    pub used: u64,
}

impl Accessibility {
    /// The requirement as this driver understands it.
    pub(super) fn to_wire(&self, driver: &Capabilities) -> Option<wire::TopologyRequirement> {
        let places = |all: &[Topology]| {
            all.iter()
                .map(|segments| wire::Topology {
                    segments: segments.clone().into_iter().collect(),
                })
                .collect()
        };
        let says_something = !self.requisite.is_empty() || !self.preferred.is_empty();
        (driver.topology && says_something).then(|| wire::TopologyRequirement {
            requisite: places(&self.requisite),
            preferred: places(&self.preferred),
        })
    }
}

impl VolumeCapability {
    /// The capability as this driver understands it.
    pub(super) fn to_wire(&self, driver: &Capabilities) -> Result<wire::VolumeCapability> {
        let mode = match self.access_mode {
            AccessMode::SingleNodeSingleWriter if !driver.single_node_modes() => {
                Mode::SingleNodeWriter
            }
            AccessMode::SingleNodeMultiWriter if !driver.single_node_modes() => {
                return Err(Error::unimplemented(
                    "the CSI driver does not know the access mode SINGLE_NODE_MULTI_WRITER: choose another one",
                ));
            }
            AccessMode::SingleNodeWriter => Mode::SingleNodeWriter,
            AccessMode::SingleNodeSingleWriter => Mode::SingleNodeSingleWriter,
            AccessMode::SingleNodeMultiWriter => Mode::SingleNodeMultiWriter,
            AccessMode::SingleNodeReaderOnly => Mode::SingleNodeReaderOnly,
            AccessMode::MultiNodeReaderOnly => Mode::MultiNodeReaderOnly,
            AccessMode::MultiNodeSingleWriter => Mode::MultiNodeSingleWriter,
            AccessMode::MultiNodeMultiWriter => Mode::MultiNodeMultiWriter,
        };
        let access_type = match self.volume_mode {
            VolumeMode::Block => AccessType::Block(BlockVolume {}),
            VolumeMode::Filesystem => AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_flags.clone(),
                volume_mount_group: if driver.volume_mount_group {
                    self.mount_group.clone()
                } else {
                    String::new()
                },
            }),
        };
        Ok(wire::VolumeCapability {
            access_mode: Some(wire::volume_capability::AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(access_mode: AccessMode) -> VolumeCapability {
        VolumeCapability {
            access_mode,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            mount_flags: Vec::new(),
            mount_group: "1000".into(),
        }
    }

    #[test]
    fn a_mount_group_is_sent_only_where_it_is_advertised() {
        for knows in [true, false] {
            let driver = Capabilities {
                volume_mount_group: knows,
                ..Capabilities::default()
            };
            let wire = capability(AccessMode::SingleNodeWriter).to_wire(&driver);
            let Some(AccessType::Mount(mount)) = wire.unwrap().access_type else {
                panic!("a file system was asked for");
            };
            assert_eq!(mount.volume_mount_group, if knows { "1000" } else { "" });
        }
    }

    fn sent(access_mode: AccessMode, controller: bool, node: bool) -> Result<&'static str> {
        let driver = Capabilities {
            controller_single_node_multi_writer: controller,
            node_single_node_multi_writer: node,
            ..Capabilities::default()
        };
        let wire = capability(access_mode).to_wire(&driver)?;
        Ok(wire.access_mode.unwrap().mode().as_str_name())
    }

    #[test]
    fn a_single_writer_is_sent_only_where_both_services_know_it() {
        use AccessMode::SingleNodeSingleWriter as Single;
        for (controller, node, mode) in [
            (true, true, "SINGLE_NODE_SINGLE_WRITER"),
            (true, false, "SINGLE_NODE_WRITER"),
            (false, true, "SINGLE_NODE_WRITER"),
            (false, false, "SINGLE_NODE_WRITER"),
        ] {
            assert_eq!(sent(Single, controller, node).unwrap(), mode);
        }
    }

    #[test]
    fn many_writers_have_no_fallback() {
        use AccessMode::SingleNodeMultiWriter as Many;
        assert_eq!(sent(Many, true, true).unwrap(), "SINGLE_NODE_MULTI_WRITER");
        assert!(sent(Many, true, false).is_err());
    }
}
