// SPDX-License-Identifier: Apache-2.0
//! What comes in by the doors of this process, and what does not.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    door: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

/// The metrics of the doors.
#[derive(Default)]
pub struct Doors {
    refused: Family<RefusalLabels, Counter>,
    connections: Family<DoorLabels, Gauge>,
}

impl Doors {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let doors = Self::default();
        registry.register(
            "door_refusals",
            "Connections and requests refused before a handler saw them, and handlers that panicked, by door and reason",
            doors.refused.clone(),
        );
        registry.register(
            "door_connections",
            "Connections, by door",
            doors.connections.clone(),
        );
        doors
    }

    /// Something was refused at this door.
    pub fn refused(&self, door: &'static str, reason: &'static str) {
        let labels = RefusalLabels { door, reason };
        self.refused.get_or_create(&labels).inc();
    }

    /// This door has so many connections.
    pub fn connections(&self, door: &'static str, now: usize) {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.connections
            .get_or_create(&DoorLabels { door })
            .set(now);
    }
}
