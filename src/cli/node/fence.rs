// SPDX-License-Identifier: Apache-2.0
//! `node fence`

use clap::Args;

use super::{Named, show::text};
use crate::{cli::output::Output, error::Result, proto::api, rpc::AdminClient};

/// Options of `node fence`.
#[derive(Debug, Args)]
pub struct Fence {
    #[command(flatten)]
    named: Named,
    /// You have made sure that the node is off, or cut from its storage.
    #[arg(long)]
    confirm_off: bool,
    /// Who says so, for `node show`.
    #[arg(long, env = "SUDO_USER", value_name = "NAME", default_value = "")]
    by: String,
    #[command(flatten)]
    output: Output,
}

impl Fence {
    pub(super) async fn run(self, mut client: AdminClient) -> Result<()> {
        let request = api::FenceNodeRequest {
            name: self.named.node.to_string(),
            confirm_off: self.confirm_off,
            by: self.by,
        };
        let node = client.fence_node(request).await?;
        self.output.print(&node, || text(&node))
    }
}
