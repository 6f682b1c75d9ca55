// SPDX-License-Identifier: Apache-2.0
//! Volumes mounted into the mount namespace of a container, while it is created or
//! while it runs.
//!
//! Everything goes by descriptor: the volume is copied before the namespace is entered,
//! the container is held by its directory in /proc, which no other process ever gets, and
//! the place inside its root file system is looked up from a descriptor of that root. An
//! image may hold any link: none leads out of the root.
//!
//! For a thread of its own, best the only one of a process that may be killed: it enters
//! the namespace for good, and file systems that do not answer hold it up.

mod container;
mod place;
mod source;

use std::{cmp::Reverse, path::PathBuf};

use serde::{Deserialize, Serialize};

use container::Container;
pub use container::Look;
use source::Source;

use crate::error::{Error, Result};

/// A container, by one of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The process.
    pub pid: u32,
    /// When it began; see [`super::process::start_time`].
    pub start_time: u64,
    /// Where this host has the root file system, while the container is created. None: it
    /// runs, and its root is that of the process.
    pub rootfs: Option<PathBuf>,
}

/// A volume that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The mount on this host.
    pub source: PathBuf,
    /// The path in the container.
    pub destination: String,
    /// What is mounted at the source: `major:minor`.
    pub device: String,
    /// Writes are refused.
    pub read_only: bool,
    /// Nothing in it can be executed.
    pub no_exec: bool,
}

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Where.
    pub target: Target,
    /// What: parents before what is below them.
    pub volumes: Vec<Wanted>,
}

/// What is to be taken away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taking {
    /// Where.
    pub target: Target,
    /// Below it lies everything that is published on this host.
    pub mount_root: PathBuf,
    /// What the specification mounts stays: these paths of the container.
    pub spared: Vec<String>,
}

/// Looks whether volumes can be mounted into the container at all. Changes nothing, and
/// enters nothing.
pub fn look(target: &Target) -> Result<Look> {
    Container::open(target).map(|container| container.seen())
}

/// Mounts the volumes: all of them, or none. What is there already is let be.
pub fn attach(order: &Order) -> Result<()> {
    let container = Container::open(&order.target)?;
    let copied = |wanted| Source::copy(wanted, &container);
    let sources: Vec<_> = order.volumes.iter().map(copied).collect::<Result<_>>()?;
    container.enter()?;
    let mut done = Vec::new();
    let mounted = sources.iter().try_for_each(|source| {
        if place::put(&container, source)? {
            done.push(source);
        }
        Ok(())
    });
    let there = mounted.and_then(|()| container.still_there());
    let Err(error) = there else {
        return Ok(());
    };
    let mut left = Vec::new();
    for source in done.into_iter().rev() {
        if let Err(e) = place::undo(source) {
            left.push(format!("{}: {e}", source.wanted.destination));
        }
    }
    if left.is_empty() {
        return Err(error);
    }
    Err(Error::internal(format!(
        "{}; what was mounted before stays mounted ({})",
        error.full_message(),
        left.join(", ")
    )))
}

/// Takes away what is mounted in the container of all that is published on this host, but
/// for what its specification has: all, or none where one is in use. Gives the places.
pub fn detach(taking: &Taking) -> Result<Vec<PathBuf>> {
    let container = Container::open(&taking.target)?;
    let published = source::published(&taking.mount_root)?;
    let table = container.mounts()?;
    let mut found = place::of_volumes(table, &published, taking);
    container.enter()?;
    // What is below goes before what it is below of.
    found.sort_by_key(|mount| Reverse(mount.mount_point.components().count()));
    let mut taken = Vec::new();
    for mount in &found {
        match place::take_away(&container, mount) {
            Ok(kept) => taken.push((kept, mount)),
            Err(error) => {
                for (kept, mount) in taken.iter().rev() {
                    place::put_back(&container, kept, mount)
                        .map_err(|e| e.context(error.full_message()))?;
                }
                return Err(error);
            }
        }
    }
    Ok(found.into_iter().map(|mount| mount.mount_point).collect())
}
