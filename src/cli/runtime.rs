// SPDX-License-Identifier: Apache-2.0
//! `runtime`: what stands in the place of runc.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::config;

/// `runtime`
#[derive(Debug, Args)]
pub struct Runtime {
    /// Give no container its volumes: only check that those that ask for volumes have
    /// them, and refuse the others.
    #[arg(long)]
    pub guard: bool,
    /// The real runtime, instead of guard.runtime.
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// What the real runtime is told.
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<OsString>,
}
