// SPDX-License-Identifier: Apache-2.0
//! What outlives the driver's process.

use std::fs;

use serde::{Deserialize, Serialize};

use super::{Backend, judge::Judge, work::Truth};

/// What the driver did, and what its caller was told.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) truth: Truth,
    pub(super) judge: Judge,
}

impl Memory {
    /// What an earlier process left.
    pub(super) fn load(backend: &Backend) -> Self {
        let Some(root) = backend.root() else {
            return Self::default();
        };
        fs::create_dir_all(root.join("volumes")).expect("the root can be made");
        match fs::read(root.join("state.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("state.json is ours"),
            Err(_) => Self::default(),
        }
    }

    /// Keeps it for the next process.
    pub(super) fn save(&self, backend: &Backend) {
        let Some(root) = backend.root() else { return };
        let bytes = serde_json::to_vec(self).expect("it is plain data");
        let next = root.join("state.json.new");
        fs::write(&next, bytes)
            .and_then(|()| fs::rename(&next, root.join("state.json")))
            .expect("the root can be written");
    }
}
