// SPDX-License-Identifier: Apache-2.0
//! What the nodes of the suite are made of.

use std::{path::Path, time::Duration};

use crate::{driver::Driver, setup::setup};

/// How long the guard waits for our daemon.
const GUARD_DEADLINE: Duration = Duration::from_secs(3);

/// What a node is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// The CSI driver; none: nothing of ours runs on the node.
    pub(crate) driver: Option<Driver>,
    /// Whether the guard stands in runc's place.
    pub(crate) guard: bool,
    /// The tool that is runc.
    pub(crate) runc: &'static str,
    /// How much of the runtime our daemon knows.
    pub(crate) runtime: Runtime,
    /// Whether every container of a pod has our hooks.
    pub(crate) hooks: bool,
}

/// How much of the runtime our daemon knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// NRI and CRI.
    Plugin,
    /// CRI alone: it sees pods, and is not asked.
    Cri,
    /// Nothing.
    Unknown,
}

/// The guard's table of a configuration.
pub(crate) fn guard_table(runc: &str, dir: &Path) -> String {
    let runc = setup()
        .runtime(runc, dir)
        .expect("every node has a runtime");
    format!(
        "[guard]\nruntime = \"{}\"\ndeadline_ms = {}\n",
        runc.display(),
        GUARD_DEADLINE.as_millis()
    )
}
