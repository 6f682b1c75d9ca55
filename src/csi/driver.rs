// SPDX-License-Identifier: Apache-2.0
//! One driver: its connection, capabilities and calls.

use std::{collections::BTreeMap, path::PathBuf};

use super::{CallError, DriverConfig};
use crate::model::{AccessMode, DriverName, VolumeMode};

/// What a driver says that it can do (CSI spec: GetPluginCapabilities,
/// ControllerGetCapabilities, NodeGetCapabilities).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// CONTROLLER_SERVICE
    pub controller: bool,
    /// VOLUME_ACCESSIBILITY_CONSTRAINTS
    pub topology: bool,
    /// CREATE_DELETE_VOLUME
    pub create_delete: bool,
    /// PUBLISH_UNPUBLISH_VOLUME
    pub controller_publish: bool,
    /// SINGLE_NODE_MULTI_WRITER of the controller
    pub controller_single_node_multi_writer: bool,
    /// STAGE_UNSTAGE_VOLUME
    pub stage: bool,
    /// SINGLE_NODE_MULTI_WRITER of the node
    pub node_single_node_multi_writer: bool,
    /// All capabilities that were advertised, in CSI's spelling, for people.
    pub names: Vec<String>,
}

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

/// What is known of a driver, for people.
#[derive(Debug, Clone)]
pub struct DriverStatus {
    /// The name in the configuration.
    pub name: DriverName,
    /// The socket.
    pub endpoint: PathBuf,
    /// Whether it answered and said that it is ready.
    pub ready: bool,
    /// `vendor_version`, where known.
    pub version: String,
    /// Advertised capabilities, where known.
    pub capabilities: Vec<String>,
    /// Why it is not ready.
    pub message: String,
}

/// One driver.
pub struct Driver {
    config: DriverConfig,
}

impl Driver {
    pub(super) fn new(config: DriverConfig) -> Self {
        Self { config }
    }
    pub fn name(&self) -> &DriverName {
        &self.config.name
    }
    pub async fn status(&self) -> DriverStatus {
        unimplemented!()
    }
    /// Connects if needed; waits for readiness within the connect deadline.
    pub async fn capabilities(&self) -> Result<Capabilities, CallError> {
        unimplemented!()
    }
    /// `node_id` of NodeGetInfo.
    pub async fn node_id(&self) -> Result<String, CallError> {
        unimplemented!()
    }
    pub async fn create_volume(&self, _request: &CreateVolume) -> Result<CreatedVolume, CallError> {
        unimplemented!()
    }
    pub async fn delete_volume(&self, _volume_id: &str) -> Result<(), CallError> {
        unimplemented!()
    }
    /// The publish_context; empty where the driver has no ControllerPublishVolume.
    pub async fn controller_publish(
        &self,
        _request: &ControllerPublish,
    ) -> Result<BTreeMap<String, String>, CallError> {
        unimplemented!()
    }
    pub async fn controller_unpublish(
        &self,
        _volume_id: &str,
        _node_id: &str,
    ) -> Result<(), CallError> {
        unimplemented!()
    }
    /// Does nothing where the driver does not stage.
    pub async fn node_stage(&self, _request: &NodeStage) -> Result<(), CallError> {
        unimplemented!()
    }
    pub async fn node_publish(&self, _request: &NodePublish) -> Result<(), CallError> {
        unimplemented!()
    }
    pub async fn node_unpublish(
        &self,
        _volume_id: &str,
        _target_path: &std::path::Path,
    ) -> Result<(), CallError> {
        unimplemented!()
    }
    /// Does nothing where the driver does not stage.
    pub async fn node_unstage(
        &self,
        _volume_id: &str,
        _staging_path: &std::path::Path,
    ) -> Result<(), CallError> {
        unimplemented!()
    }
}
