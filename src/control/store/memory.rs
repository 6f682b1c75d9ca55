// SPDX-License-Identifier: Apache-2.0
//! A store that forgets: for tests, and for trying things out.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard},
};

use super::{
    IndexPage, Page, Reader, Revision, Store, Stored, Write, check, check_distinct, reindex,
};
use crate::error::Result;

/// Keys and values in memory.
#[derive(Default)]
pub struct MemoryStore {
    content: Mutex<Content>,
}

#[derive(Default, Clone)]
struct Content {
    revision: Revision,
    values: BTreeMap<String, Stored>,
    index: BTreeMap<String, String>,
}

/// Keys of a prefix, at most so many, and where the next page goes on.
fn page<T: Clone>(
    map: &BTreeMap<String, T>,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> (Vec<(String, T)>, Option<String>) {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut found = map
        .range::<str, _>((start, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix));
    let items: Vec<_> = found
        .by_ref()
        .take(limit)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let more = found.next().is_some();
    let next = items.last().filter(|_| more).map(|(k, _)| k.clone());
    (items, next)
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

impl Reader for Content {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        Ok(self.values.get(key).cloned())
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let (items, next) = page(&self.values, prefix, after, limit);
        Ok(Page { items, next })
    }

    fn index(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<IndexPage> {
        let (items, next) = page(&self.index, prefix, after, limit);
        Ok(IndexPage { items, next })
    }
}

impl Reader for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        self.content().get(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.content().list(prefix, after, limit)
    }

    fn index(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<IndexPage> {
        self.content().index(prefix, after, limit)
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Result<Box<dyn Reader + '_>> {
        let content = self.content();
        Ok(Box::new(content.clone()))
    }

    fn write(&self, batch: &[Write]) -> Result<Revision> {
        check_distinct(batch)?;
        let mut content = self.content();
        let mut changes = Vec::new();
        for write in batch {
            let standing = content.values.get(&write.key);
            check(write, standing.map(|s| s.revision))?;
            changes.push(reindex(write, standing.map(|s| s.value.as_slice()))?);
        }
        let revision = Revision(content.revision.0 + 1);
        content.revision = revision;
        for (gone, put) in changes {
            for key in gone {
                content.index.remove(&key);
            }
            content.index.extend(put);
        }
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
