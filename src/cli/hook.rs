// SPDX-License-Identifier: Apache-2.0
//! `hook`: what an OCI runtime starts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config;

/// `hook`
#[derive(Debug, Args)]
pub struct Hook {
    /// As the OCI runtime names the kind of hook, which it tells in no other way.
    #[arg(value_enum, value_name = "STAGE")]
    pub stage: Stage,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// The kinds of hooks that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The container's namespaces are made, and its root file system.
    #[value(name = "createRuntime")]
    CreateRuntime,
    /// The same, in runtimes that have no other.
    #[value(name = "prestart")]
    Prestart,
    /// The container is deleted.
    #[value(name = "poststop")]
    Poststop,
}

impl Stage {
    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }
}
