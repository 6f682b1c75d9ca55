// SPDX-License-Identifier: Apache-2.0
//! `volume ls`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    model::{ActorRef, NodeName},
    proto::api,
};

/// Options of `volume ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those that outlived their actor, or their place in its template.
    #[arg(long, conflicts_with_all = ["actor", "node"])]
    retained: bool,
    /// Only those of this actor.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "node")]
    actor: Option<ActorRef>,
    /// Only those that are attached to this node, or about to be.
    #[arg(long)]
    node: Option<NodeName>,
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::ListVolumesRequest {
            retained: self.retained,
            actor: self.actor.map(|a| a.to_string()).unwrap_or_default(),
            node: self.node.map(|n| n.to_string()).unwrap_or_default(),
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
