// SPDX-License-Identifier: Apache-2.0
//! `storageclass ls`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    proto::api,
};

/// Options of `storageclass ls`.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::ListStorageClassesRequest::default();
        let classes = client.storage_classes(request).await?;
        let manifests = classes.iter().map(|c| output::manifest(&c.manifest));
        let manifests = manifests.collect::<Result<Vec<_>>>()?;
        self.output.print(&manifests, || {
            let rows: Vec<_> = classes
                .iter()
                .map(|c| {
                    vec![
                        c.name.clone(),
                        c.provisioner.clone(),
                        c.reclaim_policy.clone(),
                        c.volume_binding_mode.clone(),
                        output::age(&c.applied_at),
                    ]
                })
                .collect();
            let header = ["NAME", "PROVISIONER", "RECLAIM", "BINDING", "AGE"];
            output::table(&header, &rows)
        })
    }
}
