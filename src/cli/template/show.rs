// SPDX-License-Identifier: Apache-2.0
//! `template show`

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

/// Options of `template show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The template.
    name: DnsLabel,
    /// One of its revisions; the newest unless given.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: u64,
    #[command(flatten)]
    output: Output,
}

impl Show {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::GetTemplateRequest {
            name: self.name.to_string(),
            revision: self.revision,
        };
        let template = client.get_template(request).await?;
        let manifest = output::manifest(&template.manifest)?;
        self.output.print(&manifest, || {
            let head = output::fields(&[
                ("Name", template.name.clone()),
                ("Revision", template.revision.to_string()),
                ("Applied", template.applied_at.clone()),
            ]);
            let rows: Vec<_> = template
                .volumes
                .iter()
                .map(|v| {
                    vec![
                        v.name.clone(),
                        output::bytes(v.capacity_bytes),
                        v.storage_class.clone(),
                    ]
                })
                .collect();
            let volumes = output::table(&["VOLUME", "CAPACITY", "CLASS"], &rows);
            format!("{head}\n{volumes}")
        })
    }
}
