// SPDX-License-Identifier: Apache-2.0
//! `volume ls`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    proto::api,
};

/// Options of `volume ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those that outlived their actor, or their place in its template.
    #[arg(long)]
    retained: bool,
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::ListVolumesRequest {
            retained: self.retained,
            ..Default::default()
        };
        let volumes = client.volumes(request).await?;
        self.output.print(&volumes, || {
            let rows: Vec<_> = volumes.iter().map(row).collect();
            let header = [
                "UID", "ACTOR", "NAME", "CLASS", "CAPACITY", "PHASE", "NODE", "AGE",
            ];
            output::table(&header, &rows)
        })
    }
}

fn row(volume: &api::Volume) -> Vec<String> {
    let nodes: Vec<_> = volume.attachments.iter().map(|a| a.node.as_str()).collect();
    vec![
        volume.uid.clone(),
        volume.actor.clone(),
        volume.name.clone(),
        volume.storage_class.clone(),
        output::bytes(volume.capacity_bytes.max(volume.requested_bytes)),
        output::volume_phase(volume).to_owned(),
        nodes.join(","),
        output::age(&volume.created_at),
    ]
}
