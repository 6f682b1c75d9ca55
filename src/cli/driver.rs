// SPDX-License-Identifier: Apache-2.0
//! `driver ls`

use clap::{Args, Subcommand};

use super::{
    Context,
    output::{self, Output},
};
use crate::{error::Result, proto::api};

/// Verbs of drivers.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the configured CSI drivers, and whether they are ready.
    Ls(Ls),
}

/// Options of `driver ls`.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    output: Output,
}

impl Verb {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let Self::Ls(Ls { output }) = self;
        let mut client = context.client().await?;
        let drivers = client
            .list_drivers(api::ListDriversRequest {})
            .await?
            .drivers;
        output.print(&drivers, || {
            let rows: Vec<_> = drivers
                .iter()
                .map(|d| {
                    vec![
                        d.name.clone(),
                        if d.ready { "yes" } else { "no" }.to_owned(),
                        d.version.clone(),
                        d.endpoint.clone(),
                        d.message.clone(),
                    ]
                })
                .collect();
            output::table(&["NAME", "READY", "VERSION", "ENDPOINT", "MESSAGE"], &rows)
        })
    }
}
