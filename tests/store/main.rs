// SPDX-License-Identifier: Apache-2.0
//! The embedded store: what a power cut, a kill, a full disk and a broken disk
//! leave, what an older format becomes, and the verbs that look at the file.

#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking

mod disk;
mod faults;
mod file;
mod format;
mod kill;
mod power;
mod sample;
