// SPDX-License-Identifier: Apache-2.0
//! The control plane over real sockets: verbs in, CSI calls out.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking

mod bench;
mod cli;
mod codes;
mod crash;
mod expand;
mod faults;
mod hostile;
mod housekeeping;
mod reclaim;
mod recorder;
mod requests;
mod rollout;
mod scale;
mod updates;
mod verbs;
mod watch;
mod wire;
