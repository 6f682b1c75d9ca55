// SPDX-License-Identifier: Apache-2.0
//! `template ls`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    proto::api,
};

/// Options of `template ls`.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::ListTemplatesRequest::default();
        let templates = client.templates(request).await?;
        let manifests = templates.iter().map(|t| output::manifest(&t.manifest));
        let manifests = manifests.collect::<Result<Vec<_>>>()?;
        self.output.print(&manifests, || {
            let rows: Vec<_> = templates
                .iter()
                .map(|t| {
                    let volumes: Vec<_> = t.volumes.iter().map(|v| v.name.as_str()).collect();
                    vec![
                        t.name.clone(),
                        t.revision.to_string(),
                        volumes.join(","),
                        output::age(&t.applied_at),
                    ]
                })
                .collect();
            output::table(&["NAME", "REVISION", "VOLUMES", "AGE"], &rows)
        })
    }
}
