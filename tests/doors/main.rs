// SPDX-License-Identifier: Apache-2.0
//! Who comes in by a door, how many at a time, and how fast: over real sockets.

#[allow(clippy::unwrap_used)] // the file of a test
#[path = "../nodes/authority.rs"]
mod authority;
mod flood;
mod hall;
mod metrics;
mod nodes;
mod panics;
mod peers;
mod slow;
