// SPDX-License-Identifier: Apache-2.0
//! `volume`

mod delete;
mod expand;
mod ls;
mod orphans;
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
    /// Let a volume grow, where its class allows it.
    ///
    /// Example: actor-volumes volume expand UID --capacity 20Gi --wait
    Expand(expand::Expand),
    /// Delete a retained volume, with its data.
    ///
    /// Example: actor-volumes volume delete UID --wait
    Delete(delete::Delete),
    /// List volumes of ours that drivers have and no record knows; delete them
    /// when told to.
    ///
    /// Another installation that uses the same driver looks the same from here:
    /// make sure that they are yours before you delete any.
    Orphans(orphans::Orphans),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Ls(verb) => verb.run(context).await,
            Self::Show(verb) => verb.run(context).await,
            Self::Expand(verb) => verb.run(context).await,
            Self::Delete(verb) => verb.run(context).await,
            Self::Orphans(verb) => verb.run(context).await,
        }
    }
}
