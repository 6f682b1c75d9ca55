// SPDX-License-Identifier: Apache-2.0
//! The nodes that have marks of a deleted volume forget it. No deletion waits for
//! that: a node that is away is told when it is back. The volume's tombstone says
//! who is yet to.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    Control,
    cell::blocking,
    index,
    lifecycle::State,
    record::{self, Tombstone, key},
    store::{Reader, Write},
};
use crate::{
    error::{Error, Kind, Result},
    model::NodeName,
};

/// How long a node may take to forget a volume.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether one is to be told, without a hint.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How many volumes a node forgets at a time.
const TOGETHER: usize = 32;

impl Control {
    /// Tells them at once, at each hint and from time to time; it does not end.
    pub(super) async fn tell_the_untold(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let all_told = self.tell_all().await.unwrap_or_else(|error| {
                tracing::error!(error = %error.full_message(), "cannot read which nodes are yet to forget volumes");
                false
            });
            failures = if all_told { 0 } else { failures + 1 };
            let pause = match failures {
                0 => LOOK_AGAIN,
                some => self.pause(some),
            };
            tokio::select! {
                () = self.untold.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A hint, where the change left a volume behind that a node is yet to forget.
    pub(super) fn hint_untold(&self, before: &State, after: &State) {
        let mut volumes = before.volumes.iter();
        if volumes.any(|(uid, v)| !v.nodes.is_empty() && !after.volumes.contains_key(uid)) {
            self.untold.notify_one();
        }
    }

    /// Whether all that are there know it now.
    async fn tell_all(self: &Arc<Self>) -> Result<bool> {
        let store = self.store.clone();
        let nodes = blocking(&self.tasks, move || nodes(&*store)).await?;
        let mut under_way = JoinSet::new();
        for node in nodes {
            if self.node_here() == Some(&node) || self.nodes.admits(&node).is_ok() {
                let control = self.clone();
                under_way.spawn(async move {
                    let told = control.tell(&node).await;
                    if let Err(error) = &told {
                        tracing::warn!(%node, error = %error.full_message(), "a node has not forgotten all deleted volumes yet");
                    }
                    told.is_ok()
                });
            }
        }
        Ok(under_way.join_all().await.into_iter().all(|told| told))
    }

    async fn tell(self: &Arc<Self>, node: &NodeName) -> Result<()> {
        let mut after = None;
        loop {
            let (store, prefix, from) = (self.store.clone(), index::untold_of(node), after);
            let list = move || store.index(&prefix, from.as_deref(), TOGETHER);
            let page = blocking(&self.tasks, list).await?;
            let mut under_way = JoinSet::new();
            for (entry, _) in page.items {
                let key = key::tombstone(&index::last_part(&entry).parse()?);
                let (control, node) = (self.clone(), node.clone());
                under_way.spawn(async move { control.tell_of(&node, key).await });
            }
            let told: Result<Vec<()>> = under_way.join_all().await.into_iter().collect();
            told?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn tell_of(&self, node: &NodeName, key: String) -> Result<()> {
        let store = self.store.clone();
        let read = move || {
            let Some(stored) = store.get(&key)? else {
                return Ok(None);
            };
            let tombstone: Tombstone = record::decode(&key, &stored.value)?;
            let others = index::driver_volume(&tombstone.driver, &tombstone.volume_id);
            let reused = !store.index(&others, None, 1)?.items.is_empty();
            Ok(Some((key, stored.revision, tombstone, reused)))
        };
        let Some((key, revision, mut tombstone, reused)) = blocking(&self.tasks, read).await?
        else {
            return Ok(());
        };
        if reused {
            // The mark may be that of the other one, which needs it.
            tracing::warn!(%node, driver = %tombstone.driver, volume_id = %tombstone.volume_id, "the driver gave a deleted volume's id to another: the node keeps its mark");
        } else if !tombstone.volume_id.is_empty() {
            let volume = tombstone.key();
            let forgotten = tokio::time::timeout(TIMEOUT, self.nodes.forget(node, &volume));
            let late = |_| Error::deadline(format!("node {node} did not answer in time"));
            forgotten.await.map_err(late)??;
        }
        tombstone.untold.remove(node);
        let write = Write {
            value: Some(record::encode(&tombstone)?),
            expect: Some(revision),
            key,
        };
        let store = self.store.clone();
        let written = blocking(&self.tasks, move || store.write(&[write])).await;
        match written {
            // It was pruned meanwhile.
            Err(error) if error.kind() == Kind::Aborted => Ok(()),
            written => written.map(drop),
        }
    }
}

/// The nodes that are yet to forget something.
fn nodes(reader: &dyn Reader) -> Result<Vec<NodeName>> {
    let mut nodes: Vec<NodeName> = Vec::new();
    loop {
        // Behind all entries of the last one.
        let after = nodes.last().map(|n| format!("{}~", index::untold_of(n)));
        let first = reader.index(index::UNTOLD, after.as_deref(), 1)?;
        let Some((entry, _)) = first.items.into_iter().next() else {
            return Ok(nodes);
        };
        let node = entry.strip_prefix(index::UNTOLD);
        let node = node.and_then(|rest| rest.split('/').next());
        nodes.push(node.unwrap_or_default().parse()?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::{MemoryStore, Store};

    #[test]
    fn every_node_that_is_yet_to_forget_something_is_found() {
        let store = MemoryStore::new();
        let names = ["a", "a-b", "a.b", "b"];
        for (uid, untold) in [("v1", &names[..3]), ("v2", &names[1..]), ("v3", &[])] {
            let tombstone = Tombstone {
                uid: uid.parse().unwrap(),
                driver: "d.example".parse().unwrap(),
                csi_name: format!("av-{uid}"),
                volume_id: uid.into(),
                secret_refs: Default::default(),
                deleted_at: jiff::Timestamp::now(),
                untold: untold.iter().map(|n| n.parse().unwrap()).collect(),
            };
            let write = Write {
                key: key::tombstone(&tombstone.uid),
                expect: None,
                value: Some(record::encode(&tombstone).unwrap()),
            };
            store.write(&[write]).unwrap();
        }
        let mut found: Vec<_> = nodes(&store).unwrap();
        found.sort();
        let names: Vec<NodeName> = names.iter().map(|n| n.parse().unwrap()).collect();
        assert_eq!(found, names);
    }
}
