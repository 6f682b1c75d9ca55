// SPDX-License-Identifier: Apache-2.0
//! `template status`

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

/// Options of `template status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The template.
    name: DnsLabel,
    #[command(flatten)]
    output: Output,
}

impl Status {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let name = self.name.to_string();
        let request = api::GetTemplateStatusRequest { name };
        let status = client.get_template_status(request).await?;
        self.output.print(&status, || text(&status))
    }
}

fn text(status: &api::TemplateStatus) -> String {
    let rollout = if status.complete {
        "complete"
    } else {
        "under way"
    };
    let head = output::fields(&[
        ("Name", status.name.clone()),
        ("Revision", status.revision.to_string()),
        ("Rollout", rollout.to_owned()),
        ("Message", status.message.clone()),
    ]);
    let rows: Vec<_> = status
        .revisions
        .iter()
        .map(|r| {
            vec![
                r.revision.to_string(),
                r.actors.to_string(),
                output::age(&r.applied_at),
            ]
        })
        .collect();
    let mut text = format!(
        "{head}\n{}",
        output::table(&["REVISION", "ACTORS", "AGE"], &rows)
    );
    if !status.unbound.is_empty() {
        let rows: Vec<_> = status
            .unbound
            .iter()
            .map(|v| vec![v.name.clone(), v.uid.clone(), v.actor.clone()])
            .collect();
        let table = output::table(&["KEPT", "UID", "ACTOR"], &rows);
        text.push_str(&format!("\n{table}"));
    }
    let more = status.unbound_count - status.unbound.len() as u64;
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}
