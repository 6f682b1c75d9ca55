// SPDX-License-Identifier: Apache-2.0
//! One volume on one node.

use serde::{Deserialize, Serialize};

use super::{Opaque, Trouble};
use crate::model::{Generation, NodeName, VolumeUid};

/// Where an attachment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentPhase {
    /// ControllerPublishVolume is to be done, where the driver has it.
    Attaching,
    /// The node may stage and publish.
    Attached,
    /// The node is to be told that the generation is over.
    Revoking,
    /// The node was told; what it holds is to be released.
    Releasing,
    /// Release is proven; ControllerUnpublishVolume is to be done.
    Detaching,
}

impl AttachmentPhase {
    /// The phase, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attaching => "Attaching",
            Self::Attached => "Attached",
            Self::Revoking => "Revoking",
            Self::Releasing => "Releasing",
            Self::Detaching => "Detaching",
        }
    }
}

/// The driver's own name of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeId {
    /// Not asked yet: nothing can have been attached.
    Unknown,
    /// The driver has no ControllerPublishVolume: nothing is attached.
    NotNeeded,
    /// `node_id` of NodeGetInfo: something may be attached.
    Known(String),
}

/// One volume on one node. It exists for every driver, also for those without
/// ControllerPublishVolume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// The volume.
    pub volume: VolumeUid,
    /// The node.
    pub node: NodeName,
    /// The driver's name of the node.
    pub node_id: NodeId,
    /// What ControllerPublishVolume gave.
    pub publish_context: Opaque,
    /// Where it is in its life.
    pub phase: AttachmentPhase,
    /// Whether ControllerPublishVolume was ever sent: something may be attached.
    #[serde(default = "yes")]
    pub sent: bool,
    /// The driver's listing lacks it: ControllerPublishVolume is to be sent again.
    #[serde(default)]
    pub lost: bool,
    /// An operator has confirmed that the node is off: nothing there needs to
    /// be released.
    #[serde(default)]
    pub fenced: bool,
    /// The generation that it was made for.
    pub generation: Generation,
    /// What goes wrong, if anything.
    pub trouble: Option<Trouble>,
}

/// A record that does not tell is taken for the worse case.
fn yes() -> bool {
    true
}
