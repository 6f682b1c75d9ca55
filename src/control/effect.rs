// SPDX-License-Identifier: Apache-2.0
//! The effects of the steps: calls to CSI controllers and to nodes.

mod at_node;
mod expand;
mod prepare;

use std::sync::Arc;

use super::{
    Control,
    cell::Cell,
    lifecycle::{Certainty, Outcome, State, Step},
    record::{AttachmentRecord, NodeId, Opaque, VolumeRecord},
};
use crate::{
    csi::{self, CallError, Capabilities, ControllerPublish, ControllerUnpublish, DeleteVolume},
    error::Error,
    model::{AccessMode, NodeName, SecretUse},
    secret::Secrets,
};

pub(super) use prepare::admit;

/// Carries out a step, with the records as they stood when it was begun.
pub(super) async fn carry_out(
    control: &Arc<Control>,
    cell: &Arc<Cell>,
    at: &State,
    step: &Step,
) -> Outcome {
    let Some(volume) = at.volumes.get(step.volume()) else {
        return Outcome::Done;
    };
    let outcome = match step {
        Step::Prepare { .. } => prepare::prepare(control, at, volume).await,
        Step::Create { .. } => create(control, volume).await,
        Step::Locate { node, .. } => prepare::locate(control, volume, node).await,
        Step::Attach { node, .. } => attach(control, at, volume, node).await,
        Step::Detach { node, .. } => detach(control, at, volume, node).await,
        Step::DetachAgain { .. } => detach_again(control, volume).await,
        Step::Expand { .. } => expand::expand(control, at, volume).await,
        Step::Delete { .. } => delete(control, volume).await,
        Step::ExpandNode { node, .. } => at_node::expand(control, volume, node).await,
        Step::Revoke {
            node, generation, ..
        } => at_node::revoke(control, volume, node, *generation).await,
        Step::AwaitRelease { node, .. } => {
            at_node::await_release(control, cell, volume, node).await
        }
    };
    outcome.unwrap_or_else(|failed| failed)
}

/// The second is always a failure.
type Taken = Result<Outcome, Outcome>;

/// A CSI call that failed.
fn called(failed: CallError) -> Outcome {
    let certainty = match failed.outcome {
        csi::Outcome::Final => Certainty::Final,
        csi::Outcome::Ambiguous => Certainty::InDoubt,
    };
    Outcome::failed(failed.to_string(), failed.error.kind(), certainty)
}

/// What failed before anything was sent, and may pass.
fn not_sent(error: &Error) -> Outcome {
    Outcome::failed(error.full_message(), error.kind(), Certainty::NotDone)
}

/// A CSI call that only asks: it leaves nothing in doubt.
fn asked(failed: CallError) -> Outcome {
    let certainty = match failed.outcome {
        csi::Outcome::Final => Certainty::Final,
        csi::Outcome::Ambiguous => Certainty::NotDone,
    };
    Outcome::failed(failed.to_string(), failed.error.kind(), certainty)
}

/// The driver, if the configuration still names it and it is there: a call to
/// one that is not leaves nothing in doubt.
async fn driver(
    control: &Control,
    volume: &VolumeRecord,
) -> Result<(Arc<csi::Driver>, Capabilities), Outcome> {
    let driver = control.drivers.get(&volume.driver);
    let driver = driver.map_err(|e| not_sent(&e))?;
    match driver.capabilities().await {
        Ok(capabilities) => Ok((driver, capabilities)),
        Err(e) => Err(Outcome::failed(
            e.to_string(),
            e.error.kind(),
            Certainty::NotDone,
        )),
    }
}

/// The secrets of a call, read for this one call.
async fn secrets(
    control: &Control,
    volume: &VolumeRecord,
    use_: SecretUse,
) -> Result<Secrets, Outcome> {
    let read = control.settings.vault.read(&volume.secret_refs, use_).await;
    read.map_err(|e| not_sent(&e))
}

async fn create(control: &Control, volume: &VolumeRecord) -> Taken {
    let (driver, _) = driver(control, volume).await?;
    let secrets = secrets(control, volume, SecretUse::Provisioner).await?;
    let request = volume.create.to_csi(secrets);
    let made = driver.create_volume(&request).await.map_err(called)?;
    Ok(Outcome::Created {
        volume_id: made.volume_id,
        capacity_bytes: made.capacity_bytes,
        volume_context: Opaque(made.volume_context),
        accessible_topology: made.accessible_topology,
    })
}

fn node_id(attachment: &AttachmentRecord) -> Option<&str> {
    match &attachment.node_id {
        NodeId::Known(id) => Some(id),
        NodeId::Unknown | NodeId::NotNeeded => None,
    }
}

fn node_id_at(at: &State, volume: &VolumeRecord, node: &NodeName) -> Option<String> {
    let attachment = at.attachments.get(&(volume.uid.clone(), node.clone()))?;
    node_id(attachment).map(str::to_owned)
}

async fn attach(control: &Control, at: &State, volume: &VolumeRecord, node: &NodeName) -> Taken {
    let (driver, _) = driver(control, volume).await?;
    let Some(node_id) = node_id_at(at, volume, node) else {
        return Ok(Outcome::Done);
    };
    let request = ControllerPublish {
        volume_id: volume.volume_id.clone(),
        node_id,
        capability: volume.create.capability(),
        read_only: volume.create.access_mode == AccessMode::MultiNodeReaderOnly,
        volume_context: volume.volume_context.0.clone(),
        secrets: secrets(control, volume, SecretUse::ControllerPublish).await?,
    };
    let context = driver.controller_publish(&request).await.map_err(called)?;
    Ok(Outcome::Attached(Opaque(context)))
}

async fn detach(control: &Control, at: &State, volume: &VolumeRecord, node: &NodeName) -> Taken {
    match node_id_at(at, volume, node) {
        Some(node_id) => unpublish(control, volume, node_id).await,
        None => Ok(Outcome::Done),
    }
}

async fn detach_again(control: &Control, volume: &VolumeRecord) -> Taken {
    match &volume.leftover {
        Some(leftover) => unpublish(control, volume, leftover.node_id.clone()).await,
        None => Ok(Outcome::Done),
    }
}

async fn unpublish(control: &Control, volume: &VolumeRecord, node_id: String) -> Taken {
    let (driver, _) = driver(control, volume).await?;
    let request = ControllerUnpublish {
        volume_id: volume.volume_id.clone(),
        node_id,
        secrets: secrets(control, volume, SecretUse::ControllerPublish).await?,
    };
    driver
        .controller_unpublish(&request)
        .await
        .map_err(called)?;
    Ok(Outcome::Done)
}

async fn delete(control: &Control, volume: &VolumeRecord) -> Taken {
    let (driver, _) = driver(control, volume).await?;
    let request = DeleteVolume {
        volume_id: volume.volume_id.clone(),
        secrets: secrets(control, volume, SecretUse::Provisioner).await?,
    };
    driver.delete_volume(&request).await.map_err(called)?;
    Ok(Outcome::Done)
}
