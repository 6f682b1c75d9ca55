// SPDX-License-Identifier: Apache-2.0
//! Nodes as people see them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{DriverAtNode, Entry, Nodes};
use crate::{
    error::{Error, Result},
    model::{DriverName, NodeName},
    proto::api,
};

/// A time in whole seconds: nobody reads more.
pub(super) fn time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

impl Nodes {
    /// All nodes, by name.
    pub fn all(&self) -> Vec<api::Node> {
        let book = self.book();
        let mut all: Vec<_> = book.nodes.values().map(|e| self.shown(e)).collect();
        if let Some(name) = &self.here
            && !book.nodes.contains_key(name)
        {
            all.push(here(name));
            all.sort_by(|a, b| a.name.cmp(&b.name));
        }
        all
    }

    /// One node.
    pub fn one(&self, node: &NodeName) -> Result<api::Node> {
        let book = self.book();
        match book.nodes.get(node) {
            Some(entry) => Ok(self.shown(entry)),
            None if self.is_here(node) => Ok(here(node)),
            None => Err(Error::not_found(self.unknown(node).full_message())),
        }
    }

    fn shown(&self, entry: &Entry) -> api::Node {
        of(entry, self.message(entry))
    }
}

/// The node of this host, before it came for the first time.
fn here(name: &NodeName) -> api::Node {
    api::Node {
        name: name.to_string(),
        state: "Away".into(),
        message: super::starting(name),
        ..api::Node::default()
    }
}

fn of(entry: &Entry, message: String) -> api::Node {
    let record = &entry.record;
    let fence = record.fenced.as_ref();
    let doubles = entry.doubles.iter();
    api::Node {
        name: record.name.to_string(),
        state: entry.state().into(),
        message,
        first_seen: time(record.first_seen),
        since: time(entry.since),
        instance: record.instance.clone(),
        boot_id: record.boot_id.clone(),
        drivers: drivers(&record.drivers),
        fenced_since: fence.map(|f| time(f.since)).unwrap_or_default(),
        fenced_by: fence.map(|f| f.by.clone()).unwrap_or_default(),
        possible_double_writers: doubles
            .map(|(volume, holder)| api::DoubleWriter {
                driver: volume.driver.to_string(),
                volume_id: volume.volume_id.clone(),
                held_by: holder.clone(),
            })
            .collect(),
    }
}

fn drivers(drivers: &BTreeMap<DriverName, DriverAtNode>) -> Vec<api::NodeDriver> {
    let drivers = drivers.iter();
    drivers
        .map(|(name, driver)| api::NodeDriver {
            name: name.to_string(),
            node_id: driver.node_id.clone(),
            topology: driver.topology.clone().into_iter().collect(),
            max_volumes: driver.max_volumes,
        })
        .collect()
}

/// What a node told of its drivers. Those whose names are none are left out.
pub(super) fn told(drivers: Vec<api::NodeDriver>) -> BTreeMap<DriverName, DriverAtNode> {
    let drivers = drivers.into_iter();
    drivers
        .filter_map(|driver| {
            let told = DriverAtNode {
                node_id: driver.node_id,
                topology: driver.topology.into_iter().collect(),
                max_volumes: driver.max_volumes,
            };
            Some((driver.name.parse().ok()?, told))
        })
        .collect()
}
