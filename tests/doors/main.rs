// SPDX-License-Identifier: Apache-2.0
//! Who comes in by a door, how many at a time, and how fast: over real sockets.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

#[path = "../nodes/authority.rs"]
mod authority;
mod flood;
mod hall;
mod metrics;
mod nodes;
mod panics;
mod peers;
mod slow;
