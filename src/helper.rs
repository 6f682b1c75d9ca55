// SPDX-License-Identifier: Apache-2.0
//! The helper: the one process that enters mounted volumes and mounts.
//!
//! It listens on a unix socket and has privileges that the node agent needs none
//! of. Each deed is done by a process of its own, without environment, which is
//! killed at a deadline; there is never more than one a volume: a process that
//! hangs in the kernel cannot be killed, and a second one would hang too.
//!
//! One connection carries one request and one answer, each a line of JSON. A
//! request names no path: what it is about lies below the mount root that the
//! helper was started with.

mod child;
mod client;
mod deed;
mod server;
mod turn;
mod wire;

use std::time::Duration;

pub use client::Client;
pub use deed::run as run_deed;
pub use server::{Server, serve};
pub use wire::{Answer, Deed, Hex, Place, Request};

/// How long a deed may take.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long a process that was killed may take to end.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How long a peer may take to write its line, or to read ours.
const LINE_WITHIN: Duration = Duration::from_secs(2);
