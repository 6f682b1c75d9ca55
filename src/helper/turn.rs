// SPDX-License-Identifier: Apache-2.0
//! One deed a volume at a time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Hex;

/// How often it is looked whether the other one has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The volumes at which a deed is under way.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashSet<Hex<32>>>>);

/// The volume's only place for a deed, until the process has ended.
#[derive(Debug)]
pub(super) struct Turn {
    busy: Arc<Mutex<HashSet<Hex<32>>>>,
    pub(super) volume: Hex<32>,
}

impl Turns {
    /// Waits until nobody else has it.
    pub(super) async fn wait(&self, volume: &Hex<32>) -> Turn {
        loop {
            if let Some(turn) = self.take(volume) {
                return turn;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// None: another one has it.
    fn take(&self, volume: &Hex<32>) -> Option<Turn> {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(volume.clone()).then(|| Turn {
            busy: Arc::clone(&self.0),
            volume: volume.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.volume);
    }
}
