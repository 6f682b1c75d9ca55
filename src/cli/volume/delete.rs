// SPDX-License-Identifier: Apache-2.0
//! `volume delete`

use clap::Args;

use crate::{
    cli::{Context, output, timeout::Timeout},
    error::Result,
    model::VolumeUid,
    proto::api,
};

/// Options of `volume delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The uid of a retained volume.
    uid: VolumeUid,
    /// Wait until it is gone.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
}

impl Delete {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::DeleteVolumeRequest {
            uid: self.uid.to_string(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
        };
        client.delete_volume(request).await?;
        let done = if self.wait {
            "deleted"
        } else {
            "is being deleted"
        };
        output::print(&format!("volume {} {done}", self.uid))
    }
}
