// SPDX-License-Identifier: Apache-2.0
//! What stays of deleted volumes: kept for a while, then pruned.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Control,
    cell::blocking,
    record::{self, Tombstone, key},
    store::{self, Reader, Store, Write},
};
use crate::error::Result;

/// How often old ones are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_hours(24);

/// The most that one batch removes.
const BATCH: usize = 256;

impl Control {
    /// Prunes at once and then daily; it does not end.
    pub(super) async fn prune_tombstones(&self) {
        loop {
            let keep = SignedDuration::try_from(self.settings.keep_tombstones);
            let before = Timestamp::now() - keep.unwrap_or(SignedDuration::MAX);
            let store = self.store.clone();
            let pruned = blocking(&self.tasks, move || prune(&*store, before)).await;
            match pruned {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "pruned tombstones of volumes"),
                Err(error) => {
                    tracing::error!(error = %error.full_message(), "cannot prune tombstones of volumes");
                }
            }
            tokio::time::sleep(PRUNE_INTERVAL).await;
        }
    }
}

/// All tombstones.
pub(super) fn all(store: &dyn Reader) -> Result<Vec<Tombstone>> {
    let found = store::list_all(store, key::TOMBSTONES)?;
    let found = found.iter();
    found
        .map(|(key, stored)| record::decode(key, &stored.value))
        .collect()
}

fn prune(store: &dyn Store, before: Timestamp) -> Result<usize> {
    let mut old = Vec::new();
    for (key, stored) in store::list_all(store, key::TOMBSTONES)? {
        let tombstone: Tombstone = record::decode(&key, &stored.value)?;
        if tombstone.deleted_at < before {
            old.push(Write {
                key,
                expect: Some(stored.revision),
                value: None,
            });
        }
    }
    for batch in old.chunks(BATCH) {
        store.write(batch)?;
    }
    Ok(old.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::MemoryStore;

    #[test]
    fn only_tombstones_older_than_the_limit_are_pruned() {
        let store = MemoryStore::new();
        let now = Timestamp::now();
        for (uid, days) in [("old", 31), ("young", 29)] {
            let tombstone = Tombstone {
                uid: uid.parse().unwrap(),
                driver: "d.example".parse().unwrap(),
                csi_name: format!("av-{uid}"),
                volume_id: String::new(),
                secret_refs: Default::default(),
                deleted_at: now - SignedDuration::from_hours(24 * days),
                untold: Default::default(),
            };
            store
                .write(&[Write {
                    key: key::tombstone(&tombstone.uid),
                    expect: None,
                    value: Some(record::encode(&tombstone).unwrap()),
                }])
                .unwrap();
        }
        let before = now - SignedDuration::from_hours(24 * 30);
        assert_eq!(prune(&store, before).unwrap(), 1);
        let left: Vec<_> = all(&store).unwrap().into_iter().map(|t| t.uid).collect();
        assert_eq!(left, ["young".parse().unwrap()]);
        assert_eq!(prune(&store, before).unwrap(), 0);
    }
}
