// SPDX-License-Identifier: Apache-2.0
//! How many actors and volumes there are of each phase: counted once at the
//! start, from the index, and then along with every change.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Control, Repairs, lifecycle::State};

/// Numbers by phase.
type ByPhase = BTreeMap<String, u64>;

/// What is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CountsView {
    /// Actors by phase.
    pub actors: ByPhase,
    /// Volumes by phase, those that are nobody's included.
    pub volumes: ByPhase,
    /// Actors in memory.
    pub in_memory: u64,
    /// Repairs since the start.
    pub repairs: Repairs,
}

#[derive(Debug, Default)]
struct Numbers {
    actors: ByPhase,
    volumes: ByPhase,
}

/// The counts.
#[derive(Default)]
pub(super) struct Counts {
    numbers: Mutex<Numbers>,
}

fn more(of: &mut ByPhase, phase: &str) {
    match of.get_mut(phase) {
        Some(count) => *count += 1,
        None => {
            of.insert(phase.to_owned(), 1);
        }
    }
}

fn fewer(of: &mut ByPhase, phase: &str) {
    if let Some(count) = of.get_mut(phase) {
        *count = count.saturating_sub(1);
    }
}

impl Counts {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // Nothing between two changes can panic.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An actor of this phase was found.
    pub(super) fn actor(&self, phase: &str) {
        more(&mut self.numbers().actors, phase);
    }

    /// A volume of this phase was found.
    pub(super) fn volume(&self, phase: &str) {
        more(&mut self.numbers().volumes, phase);
    }

    /// One state of records became another.
    pub(super) fn follow(&self, before: &State, after: &State) {
        let mut numbers = self.numbers();
        let phase = |state: &State| state.actor.as_ref().map(|a| a.phase.as_str());
        if phase(before) != phase(after) {
            if let Some(was) = phase(before) {
                fewer(&mut numbers.actors, was);
            }
            if let Some(is) = phase(after) {
                more(&mut numbers.actors, is);
            }
        }
        for volume in before.volumes.values() {
            fewer(&mut numbers.volumes, volume.phase.as_str());
        }
        for volume in after.volumes.values() {
            more(&mut numbers.volumes, volume.phase.as_str());
        }
    }
}

impl Control {
    /// What there is, by phase. From memory, at once.
    pub fn counts(&self) -> CountsView {
        let in_memory = u64::try_from(self.cells.count()).unwrap_or(u64::MAX);
        let repairs = self.repairs();
        let numbers = self.counts.numbers();
        CountsView {
            actors: numbers.actors.clone(),
            volumes: numbers.volumes.clone(),
            in_memory,
            repairs,
        }
    }
}
