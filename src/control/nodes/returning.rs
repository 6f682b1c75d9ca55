// SPDX-License-Identifier: Apache-2.0
//! A node that was fenced and is back: what it held is over, and it gets a grant
//! again when nothing of that is left. Nothing is unpublished while its processes
//! live (I11): what lives is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Nodes, Standing, line::Line, returning};
use crate::{
    control::Control,
    error::{Error, Result},
    model::{NodeName, VolumeKey},
    proto::api::{self, request::Call, to_node::Message},
    rpc::line::volume_key,
};

/// How often it is asked what it still holds, when it gives no hint.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long the node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(30);

/// Until nothing is left, or the node is gone again.
pub(super) async fn settle(
    control: Arc<Control>,
    nodes: Arc<Nodes>,
    node: NodeName,
    line: Arc<Line>,
    holdings: Vec<api::Holding>,
) {
    let over = line.over.clone();
    let back = async {
        let mut told = line.holdings.subscribe();
        let mut holdings = holdings;
        let mut again = false;
        // A container that was being created when the node came back may have been
        // let in by the word of before: only a node that says twice that it holds
        // nothing, the second time without such a word, is taken at it.
        while !again || !holdings.is_empty() {
            if let Err(error) = end_all(&nodes, &node, &line, holdings).await {
                tracing::error!(%node, error = %error.full_message(), "the node holds what cannot be named, it is not taken back");
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
            told.mark_unchanged();
            line.send(Message::Welcome(api::Welcome {
                ready: false,
                message: returning(&node),
            }));
            if told.changed().await.is_err() {
                return;
            }
            holdings = told.borrow_and_update().clone();
            again = true;
        }
        match nodes.take_back(&node, &line, None).await {
            Ok(()) => control.node_is_back(&node),
            Err(error) => {
                tracing::error!(%node, error = %error.full_message(), "the node is not taken back");
            }
        }
    };
    over.run_until_cancelled(back).await;
}

/// Revokes all of it, and waits until nothing of it is left.
async fn end_all(
    nodes: &Nodes,
    node: &NodeName,
    line: &Line,
    holdings: Vec<api::Holding>,
) -> Result<()> {
    let mut left = BTreeMap::new();
    for holding in holdings {
        let key = volume_key(&holding.driver, &holding.volume_id)?;
        left.insert(key, holding.highest);
    }
    for (key, highest) in &left {
        revoke(line, node, key, *highest).await;
    }
    await_end(nodes, node, line, left.into_keys().collect()).await;
    Ok(())
}

async fn ask(line: &Line, key: &VolumeKey, call: Call) -> Result<api::Answer> {
    let answer = tokio::time::timeout(NODE_TIMEOUT, line.call(key, call)).await;
    answer.unwrap_or_else(|_| Err(Error::deadline("the node did not answer in time")))
}

async fn revoke(line: &Line, node: &NodeName, key: &VolumeKey, highest: u64) {
    loop {
        let call = Call::Revoke(api::RevokeCall {
            generation: highest,
        });
        match ask(line, key, call).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%node, volume = %key, error = %error.full_message(), "a volume of a fenced node is not revoked yet");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

async fn await_end(nodes: &Nodes, node: &NodeName, line: &Line, mut left: BTreeSet<VolumeKey>) {
    let mut seen = BTreeSet::new();
    while !left.is_empty() {
        for key in left.clone() {
            match ask(line, &key, Call::Held(api::HeldCall {})).await {
                Ok(answer) if answer.held_by.is_empty() => {
                    left.remove(&key);
                    nodes.double(node, &key, None);
                }
                // What is being released is held for a moment: it is named at the
                // second look.
                Ok(answer) if !seen.insert(key.clone()) => {
                    nodes.double(node, &key, Some(answer.held_by));
                }
                Ok(_) | Err(_) => {}
            }
        }
        if !left.is_empty() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl Nodes {
    /// A volume that was fenced off lives on a node that is back, or does not any
    /// more.
    fn double(&self, node: &NodeName, key: &VolumeKey, holder: Option<String>) {
        let mut book = self.book();
        let Some(entry) = book.nodes.get_mut(node) else {
            return;
        };
        match holder {
            Some(holder) => {
                if entry.doubles.get(key) != Some(&holder) {
                    tracing::warn!(%node, volume = %key, holder, "possible double writer: the node was fenced, and the volume is still in use there");
                    entry.doubles.insert(key.clone(), holder);
                }
            }
            None => {
                entry.doubles.remove(key);
            }
        }
        self.tell(&book);
    }

    /// Gives a node its whole word again: what it held is over. `instance` is its
    /// state directory from now on.
    pub(super) async fn take_back(
        &self,
        node: &NodeName,
        line: &Arc<Line>,
        instance: Option<String>,
    ) -> Result<()> {
        let _writing = self.writing.lock().await;
        let record = {
            let book = self.book();
            let entry = book.nodes.get(node);
            let Some(entry) = entry.filter(|e| {
                let is = |l: &Arc<Line>| Arc::ptr_eq(l, line);
                e.line.as_ref().is_some_and(is)
            }) else {
                return Err(Error::aborted("the node has connected anew meanwhile"));
            };
            let mut record = entry.record.clone();
            record.fenced = None;
            record.instance = instance.unwrap_or(record.instance);
            record
        };
        self.save(record.clone()).await?;
        let mut book = self.book();
        if let Some(entry) = book.nodes.get_mut(node) {
            entry.record = record;
            entry.standing = Standing::Ready;
            entry.doubles.clear();
        }
        for message in book.whole_word(node) {
            line.send(message);
        }
        tracing::info!(%node, "the node is taken back");
        self.tell(&book);
        Ok(())
    }
}
