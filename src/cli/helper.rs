// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes helper`: what enters mounted volumes, behind a socket.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config;

/// `helper`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Helper {
    /// What one process does; none: serve.
    #[command(subcommand)]
    pub verb: Option<Deed>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The socket to serve on, instead of a configuration.
    #[arg(
        long,
        value_name = "PATH",
        requires = "mount_root",
        conflicts_with = "config"
    )]
    pub socket: Option<PathBuf>,
    /// Where volumes are published, instead of a configuration.
    #[arg(long, value_name = "DIR", requires = "socket")]
    pub mount_root: Option<PathBuf>,
    /// End when standard input does: with whoever started it.
    #[arg(long)]
    pub until_eof: bool,
}

/// The process of one deed, started by the server alone.
#[derive(Debug, Subcommand)]
pub enum Deed {
    /// Do what standard input says.
    #[command(hide = true)]
    Deed {
        /// Where volumes are published.
        #[arg(long)]
        mount_root: PathBuf,
    },
}
