// SPDX-License-Identifier: Apache-2.0
//! `node reset`

use clap::Args;

use super::{Named, show::text};
use crate::{cli::output::Output, error::Result, proto::api, rpc::AdminClient};

/// Options of `node reset`.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    named: Named,
    /// You have made sure that nothing of what the node held runs there.
    #[arg(long)]
    confirm_nothing_runs: bool,
    #[command(flatten)]
    output: Output,
}

impl Reset {
    pub(super) async fn run(self, mut client: AdminClient) -> Result<()> {
        let request = api::ResetNodeRequest {
            name: self.named.node.to_string(),
            confirm_nothing_runs: self.confirm_nothing_runs,
        };
        let node = client.reset_node(request).await?;
        self.output.print(&node, || text(&node))
    }
}
