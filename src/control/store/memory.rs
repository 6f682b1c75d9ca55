// SPDX-License-Identifier: Apache-2.0
//! A store that forgets: for tests, and for trying things out.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use super::{Page, Revision, Store, Stored, Write, check, check_distinct};
use crate::error::Result;

/// Keys and values in memory.
#[derive(Default)]
pub struct MemoryStore {
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    revision: Revision,
    values: BTreeMap<String, Stored>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // A batch is applied after all its checks, so a panic elsewhere leaves
        // the content whole.
        self.content.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        Ok(self.content().values.get(key).cloned())
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let content = self.content();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = content
            .values
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let items: Vec<_> = found
            .by_ref()
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let next = found
            .next()
            .and_then(|_| items.last().map(|(k, _)| k.clone()));
        Ok(Page { items, next })
    }

    fn write(&self, batch: &[Write]) -> Result<Revision> {
        check_distinct(batch)?;
        let mut content = self.content();
        for write in batch {
            check(write, content.values.get(&write.key).map(|s| s.revision))?;
        }
        let revision = Revision(content.revision.0 + 1);
        content.revision = revision;
        for write in batch {
            match &write.value {
                Some(value) => {
                    let value = value.clone();
                    content
                        .values
                        .insert(write.key.clone(), Stored { revision, value });
                }
                None => {
                    content.values.remove(&write.key);
                }
            }
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_keeps_the_promises_of_a_store() {
        super::super::suite::run(&mut |_| Box::new(MemoryStore::new()));
    }
}
