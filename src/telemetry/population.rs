// SPDX-License-Identifier: Apache-2.0
//! How many actors and volumes there are, by phase, and how often attachments
//! were repaired: set right before each look at the metrics.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabels {
    call: &'static str,
}

/// The metrics of what the control plane has.
#[derive(Default)]
pub struct Population {
    actors: Family<PhaseLabels, Gauge>,
    volumes: Family<PhaseLabels, Gauge>,
    in_memory: Gauge,
    repairs: Family<RepairLabels, Counter>,
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Population {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let population = Self::default();
        registry.register("actors", "Actors, by phase", population.actors.clone());
        registry.register(
            "volumes",
            "Volumes that the control plane has a record of, by phase",
            population.volumes.clone(),
        );
        registry.register(
            "actors_in_memory",
            "Actors in memory: those with something to do or a grant, and some that were asked for lately",
            population.in_memory.clone(),
        );
        registry.register(
            "attachment_repairs",
            "Attachments repaired since the driver listed them otherwise, by the call that was sent again",
            population.repairs.clone(),
        );
        population
    }

    /// Sets what there is.
    pub fn set(
        &self,
        actors: &BTreeMap<String, u64>,
        volumes: &BTreeMap<String, u64>,
        in_memory: u64,
    ) {
        for (family, counts) in [(&self.actors, actors), (&self.volumes, volumes)] {
            for (phase, count) in counts {
                let labels = PhaseLabels {
                    phase: phase.clone(),
                };
                family.get_or_create(&labels).set(gauge(*count));
            }
        }
        self.in_memory.set(gauge(in_memory));
    }

    /// So many repairs were made by this call since the start.
    pub fn repairs(&self, call: &'static str, count: u64) {
        let counter = self.repairs.get_or_create(&RepairLabels { call });
        counter.inc_by(count.saturating_sub(counter.get()));
    }
}
