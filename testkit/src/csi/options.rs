// SPDX-License-Identifier: Apache-2.0
//! How the driver presents itself, and how it misbehaves for good.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where the files of volumes are. The directory `root` is of the driver alone;
/// what the driver knows is kept there in `state.json`, so that a killed process
/// goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Nowhere: a publication is an empty directory, or an empty file for a
    /// block volume. Needs no root.
    Memory,
    /// Directories `<root>/volumes/*`, shown by bind mounts.
    Bind {
        /// Of the driver alone.
        root: PathBuf,
    },
    /// Images `<root>/volumes/*` with ext4 on loop devices; for block volumes
    /// the device itself.
    Loop {
        /// Of the driver alone.
        root: PathBuf,
    },
    /// Directories `<root>/volumes/*`, shown by a FUSE file system that a
    /// process of its own serves. It may be killed or frozen.
    Fuse {
        /// Of the driver alone.
        root: PathBuf,
        /// The program `testkit-csi`, see [`fuse_server`](super::fuse_server).
        server: PathBuf,
    },
}

impl Backend {
    pub(super) fn root(&self) -> Option<&PathBuf> {
        match self {
            Self::Memory => None,
            Self::Bind { root } | Self::Loop { root } | Self::Fuse { root, .. } => Some(root),
        }
    }
}

/// Whether volumes grow while they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expansion {
    /// They do.
    Online,
    /// FAILED_PRECONDITION while they are attached, staged or published.
    Offline,
}

/// The segments of a topology, such as `zone` → `z1`.
pub type Segments = BTreeMap<String, String>;

/// The secrets that each kind of call must carry; none: it must carry none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// CreateVolume, DeleteVolume, ValidateVolumeCapabilities
    pub provisioner: BTreeMap<String, String>,
    /// ControllerPublishVolume, ControllerUnpublishVolume
    pub controller_publish: BTreeMap<String, String>,
    /// NodeStageVolume
    pub node_stage: BTreeMap<String, String>,
    /// NodePublishVolume
    pub node_publish: BTreeMap<String, String>,
    /// ControllerExpandVolume
    pub controller_expand: BTreeMap<String, String>,
    /// NodeExpandVolume
    pub node_expand: BTreeMap<String, String>,
}

impl Secrets {
    /// Every value, wherever it belongs.
    pub(super) fn values(&self) -> impl Iterator<Item = &String> {
        [
            &self.provisioner,
            &self.controller_publish,
            &self.node_stage,
            &self.node_publish,
            &self.controller_expand,
            &self.node_expand,
        ]
        .into_iter()
        .flat_map(BTreeMap::values)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// How the driver presents itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// GetPluginInfo
    pub name: String,
    /// GetPluginInfo
    pub version: String,
    /// NodeGetInfo of a driver with one socket
    pub node_id: String,
    /// Where the files are.
    pub backend: Backend,
    /// Whether what it knows is written down at each call, for the next process.
    /// A driver with a thousand volumes is slow with it.
    pub persist: bool,
    /// STAGE_UNSTAGE_VOLUME
    pub stage: bool,
    /// PUBLISH_UNPUBLISH_VOLUME, with a token in publish_context.
    pub attach: bool,
    /// SINGLE_NODE_MULTI_WRITER of the controller
    pub controller_single_node_modes: bool,
    /// SINGLE_NODE_MULTI_WRITER of the node
    pub node_single_node_modes: bool,
    /// CREATE_DELETE_VOLUME
    pub create: bool,
    /// Whether the Node service answers at all.
    pub node_service: bool,
    /// VOLUME_ACCESSIBILITY_CONSTRAINTS, if there are any: what each node id
    /// answers to NodeGetInfo.
    pub topologies: BTreeMap<String, Segments>,
    /// NodeGetInfo, and RESOURCE_EXHAUSTED at ControllerPublishVolume; 0: none.
    pub max_volumes_per_node: i64,
    /// EXPAND_VOLUME of the controller
    pub expand_controller: bool,
    /// EXPAND_VOLUME of the node
    pub expand_node: bool,
    /// VolumeExpansion of the plugin
    pub expansion: Option<Expansion>,
    /// Whether ControllerExpandVolume asks for NodeExpandVolume.
    pub node_expansion_required: bool,
    /// GET_VOLUME_STATS
    pub stats: bool,
    /// VOLUME_CONDITION of both services
    pub condition: bool,
    /// VOLUME_MOUNT_GROUP
    pub mount_group: bool,
    /// LIST_VOLUMES
    pub list: bool,
    /// LIST_VOLUMES_PUBLISHED_NODES
    pub list_nodes: bool,
    /// PUBLISH_READONLY
    pub publish_readonly: bool,
    /// CLONE_VOLUME
    pub clone_volume: bool,
    /// What calls must carry.
    pub secrets: Secrets,
    /// Whether calls on one volume may be in flight at several nodes at once.
    pub overlap_across_nodes: bool,
    /// The capacity of every new volume; none: what was asked for.
    pub capacity: Option<i64>,
    /// CreateVolume answers OK, but takes no note of volume_content_source.
    pub ignore_content_source: bool,
    /// CreateVolume answers this as accessible_topology, whatever was required.
    pub wrong_topology: Option<Segments>,
    /// The length of the value of another key in publish_context.
    pub publish_context_bytes: usize,
    /// The least length of volume ids.
    pub id_bytes: usize,
    /// Where calls and violations are appended to, one JSON object a line, and
    /// where faults are read from.
    pub files: Files,
}

/// Files for those who drive the driver from another process.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `{"seq":1,"method":"CreateVolume","volume":"…","path":"…","node":"…"}` on
    /// arrival, `{"seq":1,"code":"Ok"}` with the answer.
    pub calls: Option<PathBuf>,
    /// `{"violation":"…"}`
    pub violations: Option<PathBuf>,
    /// See [`Control`](super::Control); read anew at each call.
    pub control: Option<PathBuf>,
}

impl Options {
    /// A driver that stages and knows all access modes, and does nothing else
    /// that a driver may leave out.
    pub fn new(backend: Backend) -> Self {
        Self {
            name: "testkit.actor-volumes.dev".into(),
            version: "1".into(),
            node_id: "node-a".into(),
            backend,
            persist: true,
            stage: true,
            attach: false,
            controller_single_node_modes: true,
            node_single_node_modes: true,
            create: true,
            node_service: true,
            topologies: BTreeMap::new(),
            max_volumes_per_node: 0,
            expand_controller: false,
            expand_node: false,
            expansion: None,
            node_expansion_required: false,
            stats: false,
            condition: false,
            mount_group: false,
            list: false,
            list_nodes: false,
            publish_readonly: false,
            clone_volume: false,
            secrets: Secrets::default(),
            overlap_across_nodes: false,
            capacity: None,
            ignore_content_source: false,
            wrong_topology: None,
            publish_context_bytes: 0,
            id_bytes: 0,
            files: Files::default(),
        }
    }
}
