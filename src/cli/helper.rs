// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes helper`: what enters a mounted volume. The node agent starts it
//! as a process of its own, and kills it when it takes too long.

use std::path::PathBuf;

use clap::Subcommand;

/// What the helper does.
#[derive(Debug, Subcommand)]
pub enum Helper {
    /// Give the root directory of a mount to a group; nothing below it.
    Own {
        /// The mount point.
        #[arg(long)]
        path: PathBuf,
        /// The id of the mount that must be there.
        #[arg(long)]
        mount: u64,
        /// The numeric group.
        #[arg(long)]
        gid: u32,
    },
    /// Say whether the root of a mount answers.
    Probe {
        /// The mount point.
        #[arg(long)]
        path: PathBuf,
    },
}
