// SPDX-License-Identifier: Apache-2.0
//! The guard in the place of an OCI runtime: the real program, a script as the
//! real runtime, and a real node agent.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod agent;
mod bundle;
#[path = "../node_agent/node.rs"]
#[allow(dead_code)] // shared: not all of it is needed here
mod node;
mod pass;
mod refuse;
