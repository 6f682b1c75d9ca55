// SPDX-License-Identifier: Apache-2.0
//! One effect on the outside, and where its failures are kept.

use super::State;
use crate::{
    control::record::Trouble,
    model::{Generation, NodeName, VolumeUid},
};

/// One effect on the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What the driver can do and where the node is, so that the request of
    /// CreateVolume is whole before it is sent.
    Prepare { volume: VolumeUid },
    /// CreateVolume, with the recorded request.
    Create { volume: VolumeUid },
    /// The driver's name of the node, if it attaches at all, and whether the
    /// node reaches the volume.
    Locate { volume: VolumeUid, node: NodeName },
    /// ControllerPublishVolume.
    Attach { volume: VolumeUid, node: NodeName },
    /// The node is told that generations up to this one are over.
    Revoke {
        volume: VolumeUid,
        node: NodeName,
        generation: Generation,
    },
    /// The node proves that it holds the volume no more.
    AwaitRelease { volume: VolumeUid, node: NodeName },
    /// ControllerUnpublishVolume.
    Detach { volume: VolumeUid, node: NodeName },
    /// ControllerUnpublishVolume from a node that was released long ago.
    DetachAgain { volume: VolumeUid },
    /// ControllerExpandVolume.
    Expand { volume: VolumeUid },
    /// NodeExpandVolume, by the node.
    ExpandNode { volume: VolumeUid, node: NodeName },
    /// DeleteVolume.
    Delete { volume: VolumeUid },
}

impl Step {
    /// The volume that it is about.
    pub fn volume(&self) -> &VolumeUid {
        match self {
            Self::Prepare { volume }
            | Self::Create { volume }
            | Self::Locate { volume, .. }
            | Self::Attach { volume, .. }
            | Self::Revoke { volume, .. }
            | Self::AwaitRelease { volume, .. }
            | Self::Detach { volume, .. }
            | Self::DetachAgain { volume }
            | Self::Expand { volume }
            | Self::ExpandNode { volume, .. }
            | Self::Delete { volume } => volume,
        }
    }

    /// The node that it is about, where a failure belongs to the attachment there.
    pub(super) fn attachment(&self) -> Option<(VolumeUid, NodeName)> {
        match self {
            Self::Locate { volume, node }
            | Self::Attach { volume, node }
            | Self::Revoke { volume, node, .. }
            | Self::AwaitRelease { volume, node }
            | Self::Detach { volume, node } => Some((volume.clone(), node.clone())),
            Self::Prepare { .. }
            | Self::Create { .. }
            | Self::DetachAgain { .. }
            | Self::Expand { .. }
            | Self::ExpandNode { .. }
            | Self::Delete { .. } => None,
        }
    }

    /// The RPC that is in doubt when no sure answer comes; empty where nothing is.
    pub(super) fn rpc(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CreateVolume",
            Self::Attach { .. } => "ControllerPublishVolume",
            Self::Detach { .. } | Self::DetachAgain { .. } => "ControllerUnpublishVolume",
            Self::Expand { .. } => "ControllerExpandVolume",
            Self::ExpandNode { .. } => "NodeExpandVolume",
            Self::Delete { .. } => "DeleteVolume",
            Self::Prepare { .. }
            | Self::Locate { .. }
            | Self::Revoke { .. }
            | Self::AwaitRelease { .. } => "",
        }
    }
}

impl State {
    /// What goes wrong with the thing that a step is about.
    pub(super) fn trouble(&self, step: &Step) -> Option<&Trouble> {
        if let Some(key) = step.attachment() {
            return self.attachments.get(&key)?.trouble.as_ref();
        }
        let volume = self.volumes.get(step.volume())?;
        match step {
            Step::Expand { .. } | Step::ExpandNode { .. } => {
                volume.expansion.as_ref()?.trouble.as_ref()
            }
            Step::DetachAgain { .. } => volume.leftover.as_ref()?.trouble.as_ref(),
            _ => volume.trouble.as_ref(),
        }
    }

    /// Where that is kept; none: the thing is not there any more.
    pub(super) fn trouble_slot(&mut self, step: &Step) -> Option<&mut Option<Trouble>> {
        if let Some(key) = step.attachment() {
            return self.attachments.get_mut(&key).map(|a| &mut a.trouble);
        }
        let volume = self.volumes.get_mut(step.volume())?;
        match step {
            Step::Expand { .. } | Step::ExpandNode { .. } => {
                volume.expansion.as_mut().map(|e| &mut e.trouble)
            }
            Step::DetachAgain { .. } => volume.leftover.as_mut().map(|l| &mut l.trouble),
            _ => Some(&mut volume.trouble),
        }
    }
}
