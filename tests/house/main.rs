// SPDX-License-Identifier: Apache-2.0
//! The whole house over real mounts: control plane, node agent and a driver that
//! can be told to fail, in one process.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod converge;
mod histories;
mod house;
mod life;
mod release;
mod trouble;

/// Longer than this nothing may take, however much fails meanwhile.
const AT_LAST: std::time::Duration = std::time::Duration::from_secs(180);
