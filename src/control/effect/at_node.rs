// SPDX-License-Identifier: Apache-2.0
//! Calls to nodes.

use std::time::Duration;

use super::Taken;
use crate::{
    control::{
        Control,
        cell::Cell,
        lifecycle::{Certainty, Failure, Outcome, State},
        record::VolumeRecord,
    },
    error::{Error, Kind, Result, Retry},
    model::{Generation, NodeName},
};

/// How long a node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node may take to expand what is on a volume.
const EXPAND_TIMEOUT: Duration = Duration::from_secs(90);

/// How long nodes are quiet at most: longer than the driver may take to answer.
const QUIET: Duration = Duration::from_secs(180);

/// How often a node is asked again what it holds, when it gives no hint.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The pause after a hint that came while the node was being asked.
const ASK_AT_ONCE: Duration = Duration::from_millis(20);

pub(super) async fn revoke(
    control: &Control,
    volume: &VolumeRecord,
    node: &NodeName,
    generation: Generation,
) -> Taken {
    let key = volume.key();
    let revoked = control.nodes.revoke(node, &key, generation);
    at_node(node, "revoke", NODE_TIMEOUT, revoked).await?;
    Ok(Outcome::Done)
}

/// What is on the volume becomes as large as the volume.
pub(super) async fn expand(control: &Control, volume: &VolumeRecord, node: &NodeName) -> Taken {
    let key = volume.key();
    let expanded = control.nodes.expand(node, &key, volume.capacity_bytes);
    match at_node(node, "expand", EXPAND_TIMEOUT, expanded).await {
        Ok(true) => Ok(Outcome::Done),
        Ok(false) => Ok(Outcome::NotPublished),
        // A no that only a person can turn is not asked for again and again.
        Err(Outcome::Failed(failure)) if failure.kind.retry() != Retry::Later => {
            Err(Outcome::Failed(Failure {
                certainty: Certainty::Final,
                ..failure
            }))
        }
        Err(failed) => Err(failed),
    }
}

/// Runs a call of the controller while no call on the volume is under way, or
/// begins, on any node that may have it.
pub(super) async fn while_quiet<T>(
    control: &Control,
    at: &State,
    volume: &VolumeRecord,
    call: impl Future<Output = Result<T, Outcome>>,
) -> Result<T, Outcome> {
    let key = volume.key();
    let mut quiet = Vec::new();
    let mut ready = Ok(());
    // A node that is confirmed to be off makes no calls.
    for attachment in at.attachments_of(&volume.uid).filter(|a| !a.fenced) {
        let asked = control.nodes.quiet(&attachment.node, &key, QUIET);
        quiet.push(&attachment.node);
        ready = at_node(&attachment.node, "quiet", NODE_TIMEOUT, asked).await;
        if ready.is_err() {
            break;
        }
    }
    let answer = match ready {
        // The call ends before the quiet does.
        Ok(()) => match tokio::time::timeout(QUIET - NODE_TIMEOUT, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Outcome::failed(
                "the driver did not answer while the nodes were quiet",
                Kind::DeadlineExceeded,
                Certainty::InDoubt,
            )),
        },
        Err(failed) => Err(failed),
    };
    for node in quiet {
        control.nodes.unquiet(node, &key).await;
    }
    answer
}

pub(super) async fn await_release(
    control: &Control,
    cell: &Cell,
    volume: &VolumeRecord,
    node: &NodeName,
) -> Taken {
    let key = volume.key();
    let at = (volume.uid.clone(), node.clone());
    loop {
        // The hint is listened for while the node is asked, so that one which
        // comes right after the answer is not missed.
        let hint = control.nodes.released(node);
        let asked = at_node(
            node,
            "ask about",
            NODE_TIMEOUT,
            control.nodes.held(node, &key),
        );
        tokio::pin!(hint, asked);
        let mut hinted = false;
        let held = loop {
            tokio::select! {
                () = &mut hint, if !hinted => hinted = true,
                held = &mut asked => break held,
            }
        };
        match held {
            Ok(None) => return Ok(Outcome::Done),
            Ok(Some(holder)) => {
                if let Ok(mut inner) = cell.lock().await
                    && inner.holders.insert(at.clone(), holder.clone()) != Some(holder)
                {
                    cell.announce();
                    control.watchers.mark(&cell.name);
                }
            }
            Err(failed) => return Err(failed),
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
    within: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T, Outcome> {
    let answer = tokio::time::timeout(within, call)
        .await
        .unwrap_or_else(|_| {
            Err(Error::deadline(format!(
                "no answer within {} s",
                within.as_secs()
            )))
        });
    answer.map_err(|e| {
        let message = format!(
            "cannot {what} the volume on node {node}: {}",
            e.full_message()
        );
        Outcome::failed(message, e.kind(), Certainty::NotDone)
    })
}
