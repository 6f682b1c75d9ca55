// SPDX-License-Identifier: Apache-2.0
//! `volume expand`

use clap::Args;

use crate::{
    api::quantity::Quantity,
    cli::{Context, output, timeout::Timeout},
    error::Result,
    model::VolumeUid,
    proto::api,
};

/// Options of `volume expand`.
#[derive(Debug, Args)]
pub struct Expand {
    /// The volume's uid.
    uid: VolumeUid,
    /// What it is to have at least, such as 20Gi; volumes only grow.
    #[arg(long, value_name = "SIZE")]
    capacity: Quantity,
    /// Wait until it has that.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
}

impl Expand {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::ExpandVolumeRequest {
            uid: self.uid.to_string(),
            capacity_bytes: self.capacity.bytes(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
        };
        let volume = client.expand_volume(request).await?;
        let has = output::bytes(volume.capacity_bytes);
        output::print(&match volume.expansion {
            None => format!("volume {} has {has}", self.uid),
            Some(under_way) => format!(
                "volume {} is growing to {}: {}",
                self.uid,
                output::bytes(under_way.wanted_bytes),
                under_way.message
            ),
        })
    }
}
