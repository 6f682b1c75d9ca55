// SPDX-License-Identifier: Apache-2.0
//! The control plane over real sockets: verbs in, CSI calls out.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking

mod bench;
mod cli;
mod codes;
mod expand;
mod faults;
mod hostile;
mod housekeeping;
mod recorder;
mod verbs;
mod wire;
