// SPDX-License-Identifier: Apache-2.0
//! The hostile CSI driver, over real sockets: what it can, and how it misbehaves.

#![allow(clippy::unwrap_used)] // the whole crate is a test

mod bench;
mod binary;
mod capabilities;
mod cluster;
mod flight;
mod fuse_backend;
mod loop_backend;
mod misbehaviour;
