// SPDX-License-Identifier: Apache-2.0
//! `volume show`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::Result,
    model::VolumeUid,
    proto::api,
};

/// Options of `volume show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The volume's uid.
    uid: VolumeUid,
    #[command(flatten)]
    output: Output,
}

impl Show {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let uid = self.uid.to_string();
        let volume = client.get_volume(api::GetVolumeRequest { uid }).await?;
        self.output.print(&volume, || text(&volume))
    }
}

fn text(volume: &api::Volume) -> String {
    let mut text = output::fields(&[
        ("UID", volume.uid.clone()),
        ("Name", volume.name.clone()),
        ("Actor", volume.actor.clone()),
        ("Class", volume.storage_class.clone()),
        ("Driver", volume.driver.clone()),
        ("Volume ID", volume.volume_id.clone()),
        ("Phase", volume.phase.clone()),
        ("Requested", output::bytes(volume.requested_bytes)),
        ("Capacity", output::bytes(volume.capacity_bytes)),
        ("Access mode", volume.access_mode.clone()),
        ("File system", volume.fs_type.clone()),
        ("Reclaim policy", volume.reclaim_policy.clone()),
        ("Generation", volume.generation.to_string()),
        ("Revoked up to", volume.revoked_generation.to_string()),
        ("Created", volume.created_at.clone()),
        ("Trouble", output::trouble(volume.trouble.as_ref())),
    ]);
    if !volume.attachments.is_empty() {
        let rows: Vec<_> = volume.attachments.iter().map(row).collect();
        let header = ["NODE", "ATTACHMENT", "GENERATION", "HELD BY", "TROUBLE"];
        text.push('\n');
        text.push_str(&output::table(&header, &rows));
    }
    text
}

fn row(attachment: &api::Attachment) -> Vec<String> {
    vec![
        attachment.node.clone(),
        attachment.phase.clone(),
        attachment.generation.to_string(),
        attachment.held_by.clone(),
        output::trouble(attachment.trouble.as_ref()),
    ]
}
