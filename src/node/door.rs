// SPDX-License-Identifier: Apache-2.0
//! What the door to the runtime tells of itself, for whoever asks how things
//! stand.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use super::Agent;

/// How things stand with the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Door {
    /// The runtime has introduced itself, and the connection stands.
    pub connected: bool,
    /// It has told all that it has: events come.
    pub synchronized: bool,
    /// Its name.
    pub runtime: String,
    /// Its version, in its own spelling.
    pub version: String,
    /// How long it waits for an answer; zero: it has not said.
    pub request_timeout: Duration,
    /// Events of pods and containers so far.
    pub events: u64,
    /// Why the last connection ended; empty: it stands, or there was none.
    pub lost: String,
}

impl Agent {
    /// How things stand with the runtime.
    pub fn door(&self) -> Door {
        self.lock_door().clone()
    }

    /// The runtime has introduced itself.
    pub fn runtime_connected(&self, runtime: String, version: String, request_timeout: Duration) {
        let mut door = self.lock_door();
        *door = Door {
            connected: true,
            runtime,
            version,
            request_timeout,
            events: door.events,
            ..Door::default()
        };
    }

    /// It told an event.
    pub fn runtime_event(&self) {
        self.lock_door().events += 1;
    }

    /// The connection has ended.
    pub fn runtime_lost(&self, why: String) {
        let mut door = self.lock_door();
        door.connected = false;
        door.synchronized = false;
        door.lost = why;
    }

    pub(super) fn lock_door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
