// SPDX-License-Identifier: Apache-2.0
//! `actor show`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    model::ActorRef,
    proto::api,
};

/// Options of `actor show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    #[command(flatten)]
    output: Output,
}

impl Show {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::GetActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
        };
        let actor = client.get_actor(request).await?;
        self.output.print(&actor, || text(&actor))
    }
}

fn text(actor: &api::Actor) -> String {
    let deletion = if actor.deleting { "asked for" } else { "" };
    let last_end = match actor.last_end.as_str() {
        "" => String::new(),
        how => format!("{how} at {}", actor.last_end_at),
    };
    let head = output::fields(&[
        ("Actor", format!("{}/{}", actor.namespace, actor.name)),
        ("UID", actor.uid.clone()),
        (
            "Template",
            format!("{} (revision {})", actor.template, actor.template_revision),
        ),
        ("Phase", actor.phase.clone()),
        ("Deletion", deletion.to_owned()),
        ("Node", actor.node.clone()),
        ("Last end", last_end),
        ("Created", actor.created_at.clone()),
        ("Message", actor.message.clone()),
    ]);
    let rows: Vec<_> = actor
        .volumes
        .iter()
        .map(|v| {
            let phases: Vec<_> = v.attachments.iter().map(|a| a.phase.as_str()).collect();
            vec![
                v.name.clone(),
                v.uid.clone(),
                output::volume_phase(v).to_owned(),
                phases.join(","),
                v.generation.to_string(),
                output::bytes(v.capacity_bytes.max(v.requested_bytes)),
                v.storage_class.clone(),
            ]
        })
        .collect();
    let header = [
        "VOLUME",
        "UID",
        "PHASE",
        "ATTACHMENT",
        "GENERATION",
        "CAPACITY",
        "CLASS",
    ];
    format!("{head}\n{}", output::table(&header, &rows))
}
