// SPDX-License-Identifier: Apache-2.0
//! Containers of real OCI runtimes, given their volumes by hooks.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod agent;
mod bundle;
mod killed;
mod places;
mod refused;
mod runtimes;
mod shown;
