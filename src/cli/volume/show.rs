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
        ("Phase", output::volume_phase(volume).to_owned()),
        ("Requested", output::bytes(volume.requested_bytes)),
        ("Capacity", output::bytes(volume.capacity_bytes)),
        ("Access mode", volume.access_mode.clone()),
        ("Volume mode", volume.volume_mode.clone()),
        ("File system", volume.fs_type.clone()),
        ("Reclaim policy", volume.reclaim_policy.clone()),
        ("Generation", volume.generation.to_string()),
        ("Revoked up to", volume.revoked_generation.to_string()),
        ("Created", volume.created_at.clone()),
        ("Reachable from", volume.accessible_topology.join(" or ")),
        ("Growing", growing(volume)),
        ("Used", used(volume.usage.as_ref())),
        ("Condition", condition(volume.usage.as_ref())),
        ("Uncertain", uncertain(volume)),
        ("Trouble", output::trouble(volume.trouble.as_ref())),
        (
            "Detached again",
            output::trouble(volume.leftover_trouble.as_ref()),
        ),
    ]);
    if !volume.attachments.is_empty() {
        let rows: Vec<_> = volume.attachments.iter().map(row).collect();
        let header = ["NODE", "ATTACHMENT", "GENERATION", "HELD BY", "TROUBLE"];
        text.push('\n');
        text.push_str(&output::table(&header, &rows));
    }
    text
}

fn growing(volume: &api::Volume) -> String {
    let Some(expansion) = &volume.expansion else {
        return String::new();
    };
    let wanted = output::bytes(expansion.wanted_bytes);
    match &expansion.trouble {
        None => format!("to {wanted}: {}", expansion.message),
        trouble => format!("to {wanted}: {}", output::trouble(trouble.as_ref())),
    }
}

fn used(usage: Option<&api::Usage>) -> String {
    let Some(usage) = usage else {
        return String::new();
    };
    if !usage.message.is_empty() {
        return format!("not known: {}", usage.message);
    }
    let mut parts = Vec::new();
    if usage.total_bytes > 0 {
        parts.push(format!(
            "{} of {} bytes",
            usage.used_bytes, usage.total_bytes
        ));
    }
    if usage.total_inodes > 0 {
        parts.push(format!(
            "{} of {} inodes",
            usage.used_inodes, usage.total_inodes
        ));
    }
    parts.join(", ")
}

fn condition(usage: Option<&api::Usage>) -> String {
    match usage {
        Some(usage) if usage.abnormal => format!("abnormal: {}", usage.condition),
        Some(usage) => usage.condition.clone(),
        None => String::new(),
    }
}

/// The calls that the driver may have carried out or not.
fn uncertain(volume: &api::Volume) -> String {
    if !volume.uncertain {
        return String::new();
    }
    let expansion = volume.expansion.as_ref().and_then(|e| e.trouble.as_ref());
    let attachments = volume.attachments.iter();
    let mut doubts: Vec<_> = [volume.trouble.as_ref(), volume.leftover_trouble.as_ref()]
        .into_iter()
        .flatten()
        .chain(expansion)
        .chain(attachments.filter_map(|a| a.trouble.as_ref()))
        .filter(|t| t.ambiguous)
        .map(|t| t.in_doubt.as_str())
        .collect();
    if doubts.is_empty() {
        // It was under way when the server ended.
        doubts.push("CreateVolume");
    }
    format!("{} may be done or not", doubts.join(", "))
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
