// SPDX-License-Identifier: Apache-2.0
//! What the driver does, as honestly as it was told to.

mod controller;
mod node;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tonic::Status;

pub(super) use controller::id_of;

use super::{Fault, Hostile, Options, Shared, backend::Effect, lock, options::Segments};

type Done<T> = Result<T, Status>;

/// The volumes that there are.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Truth {
    pub(super) volumes: BTreeMap<String, Volume>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) capacity: i64,
    pub(super) context: BTreeMap<String, String>,
    pub(super) topology: Vec<Segments>,
    /// The volume that it was cloned from.
    pub(super) source: Option<String>,
    /// The nodes it is attached to, and whether several may be.
    pub(super) attached: BTreeMap<String, bool>,
    /// The nodes and paths where it is staged or published.
    pub(super) used: BTreeSet<(String, String)>,
    /// The id that was told in the place of its own.
    #[serde(default)]
    pub(super) told_as: Option<String>,
    /// The group of its files, as NodeStageVolume or NodePublishVolume set it.
    pub(super) group: Option<u32>,
}

/// One call that is carried out.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Options,
    /// The node id of the socket it came to.
    pub(super) node: String,
    pub(super) method: &'static str,
    pub(super) fault: Fault,
    /// How often the driver had been started when the call came.
    pub(super) generation: u64,
}

impl Work {
    fn truth<T>(&self, act: impl FnOnce(&mut Truth) -> T) -> T {
        act(&mut lock(&self.shared.memory).truth)
    }

    fn volume<T>(&self, id: &str, act: impl FnOnce(&mut Volume) -> T) -> Done<T> {
        self.truth(|t| t.volumes.get_mut(id).map(act))
            .ok_or_else(|| Status::not_found(format!("no volume {id}")))
    }

    /// What is said in the place of what is so.
    pub(super) fn hostile(&self) -> Hostile {
        lock(&self.shared.faults).hostile.clone()
    }

    /// The files of a volume, and the place where a call may hang on the way.
    fn effect<'a>(&'a self, name: &'a str) -> Effect<'a> {
        Effect {
            backend: &self.options.backend,
            name,
            midway: Box::new(|| self.midway()),
        }
    }

    fn midway(&self) -> std::io::Result<()> {
        while self.fault.hang_midway && lock(&self.shared.faults).hangs(self.method).1 {
            if self.shared.generation() != self.generation {
                return Err(std::io::Error::other("the driver was stopped"));
            }
            // Other calls on the volume are turned away before they read it.
            self.shared.read_control().map_err(std::io::Error::other)?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The error of a tool or of the kernel, as many drivers answer it.
fn trouble(error: std::io::Error) -> Status {
    match error.kind() {
        std::io::ErrorKind::InvalidInput => Status::invalid_argument(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}
