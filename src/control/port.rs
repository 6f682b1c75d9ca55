// SPDX-License-Identifier: Apache-2.0
//! What the control plane needs of the nodes.

use crate::{
    error::Result,
    model::{Generation, NodeName, VolumeKey},
};

/// The nodes, as the control plane sees them.
#[tonic::async_trait]
pub trait NodePort: Send + Sync {
    /// Durable on the node when it returns: no generation up to and including
    /// this one is published any more.
    async fn revoke(
        &self,
        node: &NodeName,
        volume: &VolumeKey,
        generation: Generation,
    ) -> Result<()>;

    /// What still holds the volume on that node, for people. None: release is
    /// proven (unpublished and unstaged).
    async fn held(&self, node: &NodeName, volume: &VolumeKey) -> Result<Option<String>>;

    /// Resolves when something was released on that node: a hint to ask again.
    async fn released(&self, node: &NodeName);

    /// The volume is deleted: its marks may go.
    async fn forget(&self, node: &NodeName, volume: &VolumeKey) -> Result<()>;
}
