// SPDX-License-Identifier: Apache-2.0
//! `bind` and `unbind`: volumes for a container that runs.

use std::path::PathBuf;

use clap::Args;

use crate::{config, model::DnsLabel};

/// `bind`
#[derive(Debug, Args)]
pub struct Bind {
    #[command(flatten)]
    pub at: At,
    /// The annotations of the grant, as `actor resume --host` prints them (`-`: standard
    /// input), instead of those that the container was made with.
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,
    /// The container's name in the template, where the grant is for more than one.
    #[arg(long, value_name = "NAME")]
    pub container: Option<DnsLabel>,
}

/// `unbind`
#[derive(Debug, Args)]
pub struct Unbind {
    #[command(flatten)]
    pub at: At,
}

/// Which container.
#[derive(Debug, Args)]
pub struct At {
    /// The container's id at its OCI runtime.
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// The OCI runtime, which is asked for the container's state, instead of
    /// guard.runtime.
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// The OCI runtime's own --root, where that is not its default.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The container's process, where no OCI runtime is to be asked.
    #[arg(long, value_name = "PID", requires = "bundle", conflicts_with_all = ["runtime", "root"])]
    pub pid: Option<u32>,
    /// The container's bundle.
    #[arg(long, value_name = "DIR", requires = "pid")]
    pub bundle: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}
