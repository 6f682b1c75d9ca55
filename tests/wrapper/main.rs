// SPDX-License-Identifier: Apache-2.0
//! The wrapper in the place of real OCI runtimes, and `bundle inject`: real bundles, a real
//! `serve` with its embedded driver, and a host without NRI and CRI.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod bundle;
mod checkpoint;
mod given;
mod gvisor;
mod host;
mod inject;
mod killed;
mod plain;
mod runtime;
