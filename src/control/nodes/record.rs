// SPDX-License-Identifier: Apache-2.0
//! What is remembered of a node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    control::{
        record::{self, key},
        store::{self, Store, Write},
    },
    csi::NodeInfo,
    error::Result,
    model::{DriverName, NodeName, Topology},
};

/// A node that has been connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// When it came for the first time.
    pub first_seen: Timestamp,
    /// When it came or went last.
    pub last_seen: Timestamp,
    /// The id of its state directory.
    pub instance: String,
    /// Its last boot.
    pub boot_id: String,
    /// What its drivers say of it.
    pub drivers: BTreeMap<DriverName, DriverAtNode>,
    /// Since when an operator says that it is off.
    #[serde(default)]
    pub fenced: Option<Fence>,
}

/// What NodeGetInfo of a driver gave on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverAtNode {
    /// The driver's name of the node.
    pub node_id: String,
    /// Where it is.
    pub topology: Topology,
    /// How many volumes it may have; 0: no limit.
    pub max_volumes: u64,
}

/// A node that an operator has said is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Since when.
    pub since: Timestamp,
    /// Who said so.
    pub by: String,
}

impl NodeRecord {
    /// A node that comes for the first time.
    pub fn new(name: NodeName, instance: String, now: Timestamp) -> Self {
        Self {
            name,
            first_seen: now,
            last_seen: now,
            instance,
            boot_id: String::new(),
            drivers: BTreeMap::new(),
            fenced: None,
        }
    }
}

impl From<DriverAtNode> for NodeInfo {
    fn from(driver: DriverAtNode) -> Self {
        Self {
            node_id: driver.node_id,
            max_volumes: driver.max_volumes,
            topology: driver.topology,
        }
    }
}

/// All that are known.
pub(super) fn load(store: &dyn Store) -> Result<Vec<NodeRecord>> {
    let stored = store::list_all(store, key::NODES)?.into_iter();
    stored
        .map(|(key, stored)| record::decode(&key, &stored.value))
        .collect()
}

/// Makes the record what the store holds. There is one writer.
pub(super) fn save(store: &dyn Store, node: &NodeRecord) -> Result<()> {
    let key = format!("{}{}", key::NODES, node.name);
    let expect = store.get(&key)?.map(|s| s.revision);
    let value = Some(record::encode(node)?);
    store.write(&[Write { key, expect, value }]).map(drop)
}
