// SPDX-License-Identifier: Apache-2.0
//! How a volume may be used.

use serde::{Deserialize, Serialize};

/// The access mode of CSI's `VolumeCapability.AccessMode`, in its own spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessMode {
    /// One node, any number of workloads on it, read and write.
    SingleNodeWriter,
    /// One node, one workload, read and write. The default of a template.
    SingleNodeSingleWriter,
    /// One node, many workloads, read and write.
    SingleNodeMultiWriter,
    /// One node, read only.
    SingleNodeReaderOnly,
    /// Many nodes, read only.
    MultiNodeReaderOnly,
    /// Many nodes, one of them writes.
    MultiNodeSingleWriter,
    /// Many nodes, all of them write.
    MultiNodeMultiWriter,
}

impl AccessMode {
    /// The mode as CSI spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SingleNodeWriter => "SINGLE_NODE_WRITER",
            Self::SingleNodeSingleWriter => "SINGLE_NODE_SINGLE_WRITER",
            Self::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
            Self::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
            Self::MultiNodeReaderOnly => "MULTI_NODE_READER_ONLY",
            Self::MultiNodeSingleWriter => "MULTI_NODE_SINGLE_WRITER",
            Self::MultiNodeMultiWriter => "MULTI_NODE_MULTI_WRITER",
        }
    }

    /// Whether nobody may write.
    pub const fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }

    /// Whether several scopes of one node may use the volume at once. CSI leaves
    /// SINGLE_NODE_WRITER open; here it is one scope.
    pub const fn is_shared(self) -> bool {
        match self {
            Self::SingleNodeMultiWriter
            | Self::MultiNodeReaderOnly
            | Self::MultiNodeSingleWriter
            | Self::MultiNodeMultiWriter => true,
            Self::SingleNodeWriter | Self::SingleNodeSingleWriter | Self::SingleNodeReaderOnly => {
                false
            }
        }
    }
}

/// How the volume is shown: as a file system or as a block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeMode {
    /// A mounted file system.
    #[default]
    Filesystem,
    /// A raw block device.
    Block,
}

/// What becomes of the volume when its actor is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReclaimPolicy {
    /// The volume is deleted with the actor.
    #[default]
    Delete,
    /// The volume and its data are kept.
    Retain,
}
