// SPDX-License-Identifier: Apache-2.0
//! The effects of the steps: calls to CSI controllers and to nodes.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    cell::Cell,
    lifecycle::{Outcome, State, Step},
    record::{NodeId, Opaque, VolumeRecord},
};
use crate::{
    csi::{self, CallError, ControllerPublish, ControllerUnpublish, DeleteVolume},
    error::{Error, Result},
    model::{Generation, NodeName},
    secret::Secrets,
};

/// How long a node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a node is asked again what it holds, when it gives no hint.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The pause after a hint that came while the node was being asked.
const ASK_AT_ONCE: Duration = Duration::from_millis(20);

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
        Step::Create { .. } => create(control, volume).await,
        Step::Locate { .. } => locate(control, volume).await,
        Step::Attach { node, .. } => attach(control, at, volume, node).await,
        Step::Detach { node, .. } => detach(control, at, volume, node).await,
        Step::Delete { .. } => delete(control, volume).await,
        Step::Revoke {
            node, generation, ..
        } => return revoke(control, volume, node, *generation).await,
        Step::AwaitRelease { node, .. } => {
            return await_release(control, cell, volume, node).await;
        }
        Step::Forget { node, .. } => return forget(control, volume, node).await,
    };
    outcome.unwrap_or_else(|failed| {
        let is_final = failed.outcome == csi::Outcome::Final;
        let kind = failed.error.kind();
        Outcome::failed(failed.to_string(), kind, is_final)
    })
}

type Called = Result<Outcome, CallError>;

/// The driver, if the configuration still names it.
fn driver(
    control: &Control,
    volume: &VolumeRecord,
    rpc: &'static str,
) -> Result<Arc<csi::Driver>, CallError> {
    control
        .drivers
        .get(&volume.driver)
        .map_err(|error| CallError {
            rpc,
            outcome: csi::Outcome::Ambiguous,
            error,
        })
}

async fn create(control: &Control, volume: &VolumeRecord) -> Called {
    let driver = driver(control, volume, "CreateVolume")?;
    let made = driver.create_volume(&volume.create.to_csi()).await?;
    Ok(Outcome::Created {
        volume_id: made.volume_id,
        capacity_bytes: made.capacity_bytes,
        volume_context: Opaque(made.volume_context),
    })
}

async fn locate(control: &Control, volume: &VolumeRecord) -> Called {
    let driver = driver(control, volume, "NodeGetInfo")?;
    if !driver.capabilities().await?.controller_publish {
        return Ok(Outcome::Located(None));
    }
    Ok(Outcome::Located(Some(driver.node_info().await?.node_id)))
}

fn node_id(at: &State, volume: &VolumeRecord, node: &NodeName) -> Option<String> {
    match &at
        .attachments
        .get(&(volume.uid.clone(), node.clone()))?
        .node_id
    {
        NodeId::Known(id) => Some(id.clone()),
        NodeId::Unknown | NodeId::NotNeeded => None,
    }
}

async fn attach(control: &Control, at: &State, volume: &VolumeRecord, node: &NodeName) -> Called {
    let driver = driver(control, volume, "ControllerPublishVolume")?;
    let Some(node_id) = node_id(at, volume, node) else {
        return Ok(Outcome::Done);
    };
    let request = ControllerPublish {
        volume_id: volume.volume_id.clone(),
        node_id,
        capability: volume.create.capability(),
        read_only: false,
        volume_context: volume.volume_context.0.clone(),
        secrets: Secrets::default(),
    };
    let context = driver.controller_publish(&request).await?;
    Ok(Outcome::Attached(Opaque(context)))
}

async fn detach(control: &Control, at: &State, volume: &VolumeRecord, node: &NodeName) -> Called {
    let driver = driver(control, volume, "ControllerUnpublishVolume")?;
    if let Some(node_id) = node_id(at, volume, node) {
        let request = ControllerUnpublish {
            volume_id: volume.volume_id.clone(),
            node_id,
            secrets: Secrets::default(),
        };
        driver.controller_unpublish(&request).await?;
    }
    Ok(Outcome::Done)
}

async fn delete(control: &Control, volume: &VolumeRecord) -> Called {
    let driver = driver(control, volume, "DeleteVolume")?;
    let request = DeleteVolume {
        volume_id: volume.volume_id.clone(),
        secrets: Secrets::default(),
    };
    driver.delete_volume(&request).await?;
    Ok(Outcome::Done)
}

async fn revoke(
    control: &Control,
    volume: &VolumeRecord,
    node: &NodeName,
    generation: Generation,
) -> Outcome {
    let key = volume.key();
    at_node(node, "revoke", control.nodes.revoke(node, &key, generation))
        .await
        .map_or_else(|failed| failed, |()| Outcome::Done)
}

async fn forget(control: &Control, volume: &VolumeRecord, node: &NodeName) -> Outcome {
    let key = volume.key();
    at_node(node, "forget", control.nodes.forget(node, &key))
        .await
        .map_or_else(|failed| failed, |()| Outcome::Done)
}

async fn await_release(
    control: &Control,
    cell: &Cell,
    volume: &VolumeRecord,
    node: &NodeName,
) -> Outcome {
    let key = volume.key();
    let at = (volume.uid.clone(), node.clone());
    loop {
        // The hint is listened for while the node is asked, so that one which
        // comes right after the answer is not missed.
        let hint = control.nodes.released(node);
        let asked = at_node(node, "ask about", control.nodes.held(node, &key));
        tokio::pin!(hint, asked);
        let mut hinted = false;
        let held = loop {
            tokio::select! {
                () = &mut hint, if !hinted => hinted = true,
                held = &mut asked => break held,
            }
        };
        match held {
            Ok(None) => return Outcome::Done,
            Ok(Some(holder)) => {
                if let Ok(mut inner) = cell.lock().await
                    && inner.holders.insert(at.clone(), holder.clone()) != Some(holder)
                {
                    cell.announce();
                }
            }
            Err(failed) => return failed,
        }
        let pause = if hinted { ASK_AT_ONCE } else { ASK_AGAIN };
        tokio::select! {
            () = hint, if !hinted => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A call to a node, with a deadline. The same call again does no harm, so no
/// failure of it is final.
async fn at_node<T>(
    node: &NodeName,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T, Outcome> {
    let answer = tokio::time::timeout(NODE_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| {
            Err(Error::deadline(format!(
                "no answer within {} s",
                NODE_TIMEOUT.as_secs()
            )))
        });
    answer.map_err(|e| {
        let message = format!(
            "cannot {what} the volume on node {node}: {}",
            e.full_message()
        );
        Outcome::failed(message, e.kind(), false)
    })
}
