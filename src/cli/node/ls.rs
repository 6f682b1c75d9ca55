// SPDX-License-Identifier: Apache-2.0
//! `node ls`

use clap::Args;

use crate::{
    cli::output::{self, Output},
    error::Result,
    proto::api,
    rpc::AdminClient,
};

/// Options of `node ls`.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    output: Output,
}

impl Ls {
    pub(super) async fn run(self, mut client: AdminClient) -> Result<()> {
        let nodes = client.list_nodes(api::ListNodesRequest {}).await?.nodes;
        self.output.print(&nodes, || {
            let rows: Vec<_> = nodes.iter().map(row).collect();
            output::table(&["NAME", "STATE", "SINCE", "DRIVERS", "MESSAGE"], &rows)
        })
    }
}

fn row(node: &api::Node) -> Vec<String> {
    let drivers: Vec<_> = node.drivers.iter().map(|d| d.name.as_str()).collect();
    vec![
        node.name.clone(),
        node.state.clone(),
        node.since.clone(),
        drivers.join(","),
        node.message.clone(),
    ]
}
