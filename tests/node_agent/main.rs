// SPDX-License-Identifier: Apache-2.0
//! The node agent over real mounts, a real CSI driver double and a real listing.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod asked;
mod block;
mod breach;
mod codes;
mod drain;
mod grants;
mod group;
mod helper;
mod hosts;
mod life;
mod node;
mod policy;
mod promises;
mod repair;
mod share;
mod sight;
mod sub_path;
mod userns;
