// SPDX-License-Identifier: Apache-2.0
//! `template`

mod apply;
mod ls;
mod show;

use clap::Subcommand;

use super::Context;
use crate::error::Result;

/// Verbs of templates.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Store a template; a changed one becomes the next revision, for new actors.
    ///
    /// Example: actor-volumes template apply -f my-agent-template.yaml
    Apply(apply::Apply),
    /// List the templates at their newest revisions.
    Ls(ls::Ls),
    /// Show a template; with -o yaml or json, as a manifest that can be applied.
    Show(show::Show),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Apply(verb) => verb.run(context).await,
            Self::Ls(verb) => verb.run(context).await,
            Self::Show(verb) => verb.run(context).await,
        }
    }
}
