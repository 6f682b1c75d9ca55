// SPDX-License-Identifier: Apache-2.0
//! `template`

mod apply;
mod ls;
mod rollback;
mod show;
mod status;

use clap::Subcommand;

use super::Context;
use crate::error::Result;

/// Verbs of templates.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Store a template; a changed one becomes the next revision.
    ///
    /// New actors take it, the others when they are resumed next. Volumes may come
    /// and go; one that stays may grow, where its class allows it.
    ///
    /// Example: actor-volumes template apply -f my-agent-template.yaml
    Apply(apply::Apply),
    /// List the templates at their newest revisions.
    Ls(ls::Ls),
    /// Show a template; with -o yaml or json, as a manifest that can be applied.
    Show(show::Show),
    /// Show how far the newest revision has come, and what it waits for.
    Status(status::Status),
    /// Make a new revision with the content and the volumes of an older one.
    ///
    /// Example: actor-volumes template rollback my-agent-template --to 3
    Rollback(rollback::Rollback),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Apply(verb) => verb.run(context).await,
            Self::Ls(verb) => verb.run(context).await,
            Self::Show(verb) => verb.run(context).await,
            Self::Status(verb) => verb.run(context).await,
            Self::Rollback(verb) => verb.run(context).await,
        }
    }
}
