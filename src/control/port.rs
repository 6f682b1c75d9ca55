// SPDX-License-Identifier: Apache-2.0
//! What the control plane needs of the nodes.

use std::time::Duration;

use crate::{
    csi::{NodeInfo, VolumeStats},
    error::{Error, Result},
    model::{ActorRef, DriverName, Generation, Grant, NodeName, VolumeKey},
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

    /// When it returns, no CSI call on the volume is in flight on that node, and
    /// none begins for so long, or until [`NodePort::unquiet`].
    async fn quiet(&self, node: &NodeName, _: &VolumeKey, _: Duration) -> Result<()> {
        Err(unable(node, "be quiet about a volume"))
    }

    /// Calls on the volume may begin again.
    async fn unquiet(&self, _: &NodeName, _: &VolumeKey) {}

    /// Makes what is on the volume as large as the volume. False: it is not
    /// published there yet, so that there is nothing to expand.
    async fn expand(&self, node: &NodeName, _: &VolumeKey, _bytes: u64) -> Result<bool> {
        Err(unable(node, "expand volumes"))
    }

    /// How much of the volume is used there, and whether the driver takes it for
    /// damaged. None: it does not tell.
    async fn stats(&self, node: &NodeName, _: &VolumeKey) -> Result<Option<VolumeStats>> {
        Err(unable(node, "tell how much of a volume is used"))
    }

    /// What the driver said of the node there (NodeGetInfo). None: it is the node
    /// of this host, whose driver can be asked here.
    async fn node_info(&self, _: &NodeName, _: &DriverName) -> Result<Option<NodeInfo>> {
        Ok(None)
    }

    /// Whether an actor may be resumed on that node, which is not the one of this
    /// host. From memory, at once.
    fn admits(&self, node: &NodeName) -> Result<()> {
        Err(Error::precondition(format!(
            "node {node} is not served here"
        )))
    }

    /// Who may still write to the volume on a node that was fenced and is back.
    fn possible_double_writers(&self, _: &VolumeKey) -> Vec<String> {
        Vec::new()
    }

    /// The public keys, as PEM, that nodes are to trust.
    fn keys(&self, _: &[String]) {}

    /// The current word on an actor has changed; none: it is not resumed.
    fn word(&self, _: &ActorRef, _: Option<&Grant>) {}

    /// Resolves when that node, if it is the one of this host, knows the word so far.
    /// Whoever waits has a deadline.
    async fn told(&self, _: &NodeName) -> Result<()> {
        Ok(())
    }
}

fn unable(node: &NodeName, what: &str) -> Error {
    Error::unimplemented(format!("node {node} cannot {what}: update it"))
}
