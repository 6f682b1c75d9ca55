// SPDX-License-Identifier: Apache-2.0
//! `storageclass`

mod apply;
mod ls;

use clap::Subcommand;

use super::Context;
use crate::error::Result;

/// Verbs of storage classes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Store a class, in Kubernetes' own shape.
    ///
    /// Example: actor-volumes storageclass apply -f storage-pool1.yaml
    Apply(apply::Apply),
    /// List the classes.
    Ls(ls::Ls),
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        match self {
            Self::Apply(verb) => verb.run(context).await,
            Self::Ls(verb) => verb.run(context).await,
        }
    }
}
