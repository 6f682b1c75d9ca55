// SPDX-License-Identifier: Apache-2.0
//! `volume`

mod ls;
mod show;

use clap::Subcommand;

use super::Context;
use crate::error::Result;

/// Verbs of volumes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the volumes, also those that outlived their actor.
    Ls(ls::Ls),
    /// Show a volume: where it is attached, who holds it, what goes wrong.
    Show(show::Show),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Ls(verb) => verb.run(context).await,
            Self::Show(verb) => verb.run(context).await,
        }
    }
}
