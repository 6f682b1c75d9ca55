// SPDX-License-Identifier: Apache-2.0
//! The actors in memory: those with something to do or a grant, and some that
//! were asked for lately. The others are in the store alone.
//!
//! A cell is put back only while nobody else has it, which the lock on the map
//! tells for sure: cells are handed out under it alone. So an actor never has two.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use jiff::Timestamp;

use super::{
    Control,
    cell::Cell,
    lifecycle::{self, Plan},
    missing,
};
use crate::{error::Result, model::ActorRef};

/// How many that rest are kept in memory.
const KEPT: usize = 1000;

/// How many are looked at when one more comes to rest.
const LOOKED_AT: usize = 4;

/// The actors in memory.
#[derive(Default)]
pub(super) struct Cells {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    cells: HashMap<ActorRef, Arc<Cell>>,
    /// Those that may be put back, those that came first in front.
    idle: VecDeque<ActorRef>,
}

impl Cells {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        // What a panic leaves is found again: the queue and the map are compared
        // at every look.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, cell: &Arc<Cell>) {
        let name = cell.name.clone();
        self.inside().cells.insert(name, cell.clone());
    }

    /// The cell, if the actor is in memory.
    pub(super) fn get(&self, actor: &ActorRef) -> Option<Arc<Cell>> {
        self.inside().cells.get(actor).cloned()
    }

    /// The cell, or the one that `make` makes.
    fn get_or_enter(&self, actor: &ActorRef, make: impl FnOnce() -> Cell) -> Arc<Cell> {
        let mut inside = self.inside();
        if let Some(cell) = inside.cells.get(actor) {
            return cell.clone();
        }
        let cell = Arc::new(make());
        inside.cells.insert(actor.clone(), cell.clone());
        inside.queue(&cell);
        cell
    }

    /// All that are in memory.
    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.inside().cells.values().cloned().collect()
    }

    /// How many are in memory.
    pub(super) fn count(&self) -> usize {
        self.inside().cells.len()
    }

    /// Nothing is to be done for it now: it may be put back later.
    pub(super) fn rests(&self, cell: &Arc<Cell>) {
        self.inside().queue(cell);
    }
}

impl Inside {
    fn queue(&mut self, cell: &Arc<Cell>) {
        if !cell.queued.swap(true, Ordering::Relaxed) {
            self.idle.push_back(cell.name.clone());
        }
        for _ in 0..self.idle.len().saturating_sub(KEPT).min(LOOKED_AT) {
            let Some(name) = self.idle.pop_front() else {
                return;
            };
            let Some(found) = self.cells.get(&name) else {
                continue;
            };
            if Arc::strong_count(found) > 1 {
                self.idle.push_back(name);
            } else if found.is_idle() {
                self.cells.remove(&name);
            } else {
                // It comes again when it has come to rest.
                found.queued.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Control {
    /// The cell of that name, whether there is such an actor or not.
    pub(super) fn entered(&self, actor: &ActorRef) -> Arc<Cell> {
        self.cells.get_or_enter(actor, || {
            Cell::unread(actor.clone(), self.store.clone(), self.tasks.clone())
        })
    }

    /// The actor's cell, read from the store if it is not in memory.
    pub(super) async fn cell(self: &Arc<Self>, actor: &ActorRef) -> Result<Arc<Cell>> {
        let cell = self.entered(actor);
        let mut inner = cell.lock().await?;
        if let Some(untold) = inner.untold.take() {
            self.follow(&cell, &untold, &inner.state, &untold, &inner.state);
        }
        if inner.state.actor.is_none() && !inner.driving {
            return Err(missing(actor));
        }
        // What a failed write left, as far as it was done, is gone on with.
        if !inner.driving && lifecycle::plan(&inner.state, Timestamp::now()) != Plan::default() {
            self.drive(&cell, &mut inner);
        }
        drop(inner);
        Ok(cell)
    }

    /// How many actors are in memory: those that are active, and some more.
    pub fn actors_in_memory(&self) -> usize {
        self.cells.count()
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::control::store::MemoryStore;

    #[test]
    fn memory_is_bounded_and_what_somebody_has_stays() {
        let cells = Cells::default();
        let store = Arc::new(MemoryStore::new());
        let enter = |n: usize| {
            let name: ActorRef = format!("agents/a{n}").parse().unwrap();
            let make = || Cell::unread(name.clone(), store.clone(), TaskTracker::new());
            cells.get_or_enter(&name, make)
        };
        let held: Vec<_> = (0..10).map(enter).collect();
        for n in 0..5 * KEPT {
            enter(n);
        }
        assert!(cells.count() <= KEPT + held.len(), "{}", cells.count());
        for cell in &held {
            let found = cells.get(&cell.name).unwrap();
            assert!(Arc::ptr_eq(&found, cell), "an actor never has two cells");
        }
        drop(held);
        for n in 0..20 {
            enter(6 * KEPT + n);
        }
        assert!(cells.count() <= KEPT, "{}", cells.count());
    }
}
