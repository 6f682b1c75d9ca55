// SPDX-License-Identifier: Apache-2.0
//! `actor ls`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    model::DnsLabel,
    proto::api,
};

/// Options of `actor ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those of this namespace.
    #[arg(short, long)]
    namespace: Option<DnsLabel>,
    /// Only those of this template.
    #[arg(short, long)]
    template: Option<DnsLabel>,
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::ListActorsRequest {
            namespace: self.namespace.map(String::from).unwrap_or_default(),
            template: self.template.map(String::from).unwrap_or_default(),
            ..Default::default()
        };
        let actors = client.actors(request).await?;
        self.output.print(&actors, || {
            let rows: Vec<_> = actors.iter().map(row).collect();
            let header = [
                "NAMESPACE",
                "NAME",
                "TEMPLATE",
                "PHASE",
                "NODE",
                "VOLUMES",
                "AGE",
            ];
            output::table(&header, &rows)
        })
    }
}

fn row(actor: &api::Actor) -> Vec<String> {
    let ready = actor.volumes.iter().filter(|v| v.phase == "Ready").count();
    vec![
        actor.namespace.clone(),
        actor.name.clone(),
        actor.template.clone(),
        actor.phase.clone(),
        actor.node.clone(),
        format!("{ready}/{}", actor.volumes.len()),
        output::age(&actor.created_at),
    ]
}
