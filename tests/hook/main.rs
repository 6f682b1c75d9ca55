// SPDX-License-Identifier: Apache-2.0
//! Containers of real OCI runtimes, given their volumes by hooks.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod agent;
mod bound;
mod bundle;
mod files;
#[path = "../wrapper/host.rs"]
#[allow(dead_code)] // shared: not all of it is needed here
mod host;
mod killed;
mod places;
mod refused;
mod runtimes;
mod served;
mod shown;
