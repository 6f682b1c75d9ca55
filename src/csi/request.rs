// SPDX-License-Identifier: Apache-2.0
//! Requests and answers in our own words, and their form on the wire.

use std::{collections::BTreeMap, path::PathBuf};

use super::Capabilities;
use crate::{
    error::{Error, Result},
    model::{AccessMode, VolumeMode},
    proto::csi::{
        self as wire,
        volume_capability::{AccessType, BlockVolume, MountVolume, access_mode::Mode},
    },
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
}

/// A CreateVolume request, without secrets.
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
    /// Of CreateVolumeResponse.
    pub volume_context: BTreeMap<String, String>,
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
                volume_mount_group: String::new(),
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
