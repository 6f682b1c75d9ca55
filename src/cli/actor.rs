// SPDX-License-Identifier: Apache-2.0
//! `actor`

mod crash;
mod create;
mod delete;
mod ls;
mod resume;
mod show;
mod suspend;
mod update;
mod watch;

use clap::Subcommand;

use super::Context;
use crate::error::Result;

/// Verbs of actors.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create an actor from a template; its volumes are made in the background.
    ///
    /// Example: actor-volumes actor create agents/my-agent-1 --template my-agent-template
    Create(create::Create),
    /// List the actors.
    Ls(ls::Ls),
    /// Show an actor, its volumes and what it waits for.
    Show(show::Show),
    /// Attach the actor's volumes and print the annotations for its pod.
    ///
    /// Waits until the volumes are there. Run again, it prints the same.
    ///
    /// Example: actor-volumes actor resume agents/my-agent-1 --format cri
    Resume(resume::Resume),
    /// End the grant of a resumed actor; its volumes are released when its pod is gone.
    ///
    /// Example: actor-volumes actor suspend agents/my-agent-1 --wait
    Suspend(suspend::Suspend),
    /// Say that a resumed actor died: its grant is over, its volumes are released.
    ///
    /// Its next resume gets the volumes as they were flushed last, whatever its
    /// memory image says.
    ///
    /// Example: actor-volumes actor crash agents/my-agent-1 --wait
    Crash(crash::Crash),
    /// Move a suspended actor to the newest revision of its template.
    Update(update::Update),
    /// Show what is there, and then every change, until it is ended.
    ///
    /// Example: actor-volumes actor watch agents/my-agent-1 -o json
    Watch(watch::Watch),
    /// Delete a suspended actor and its volumes.
    ///
    /// Example: actor-volumes actor delete agents/my-agent-1 --wait
    Delete(delete::Delete),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Create(verb) => verb.run(context).await,
            Self::Ls(verb) => verb.run(context).await,
            Self::Show(verb) => verb.run(context).await,
            Self::Resume(verb) => verb.run(context).await,
            Self::Suspend(verb) => verb.run(context).await,
            Self::Crash(verb) => verb.run(context).await,
            Self::Update(verb) => verb.run(context).await,
            Self::Watch(verb) => verb.run(context).await,
            Self::Delete(verb) => verb.run(context).await,
        }
    }
}
