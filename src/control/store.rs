// SPDX-License-Identifier: Apache-2.0
//! Where records live: keys and values with compare-and-swap by revision.
//!
//! The trait is small so that another store can take its place: a batch is all
//! or nothing and durable when [`Store::write`] returns; every key carries the
//! revision of the batch that wrote it last, and a write names the revision that
//! it expects to replace.

mod memory;
mod redb;
#[cfg(test)]
mod suite;

pub use memory::MemoryStore;
pub use redb::{MakeBackend, RedbStore};

use super::index::{self, Entries};
use crate::error::{Error, Result};

/// The format of the store: which keys there are and how values are wrapped.
/// A store of a higher format is refused, one of a lower is brought up to it.
/// 2: the index beside the records.
pub const FORMAT: u32 = 2;

/// The number of a batch; it only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The batch that wrote it.
    pub revision: Revision,
    /// The bytes.
    pub value: Vec<u8>,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// What is changed.
    pub key: String,
    /// What must stand there now; none: nothing may.
    pub expect: Option<Revision>,
    /// What is to stand there; none: nothing.
    pub value: Option<Vec<u8>>,
}

/// Some keys of a prefix, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub items: Vec<(String, Stored)>,
    /// Where the next page goes on: give it as `after`. None: this was the last.
    pub next: Option<String>,
}

/// Some index entries of a prefix, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexPage {
    /// Keys, and what is told with them.
    pub items: Vec<(String, String)>,
    /// Where the next page goes on: give it as `after`. None: this was the last.
    pub next: Option<String>,
}

/// What can be read. Calls block; run them where that is allowed.
pub trait Reader {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Stored>>;

    /// At most `limit` keys that start with `prefix`, in order, after the key `after`.
    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page>;

    /// The same of the index: its entries are those of the records (see
    /// [`index`](super::index)), at every moment.
    fn index(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<IndexPage>;
}

/// An ACID store.
pub trait Store: Reader + Send + Sync {
    /// What stands there now, whatever is written while it is read.
    fn snapshot(&self) -> Result<Box<dyn Reader + '_>>;

    /// Makes all changes or none; they are durable when it returns. `Aborted`
    /// when a key does not stand at the revision expected. After any other error
    /// they were made or not: the store is to be read again.
    fn write(&self, batch: &[Write]) -> Result<Revision>;
}

/// How many keys are read at a time.
const PAGE: usize = 512;

/// All keys that start with `prefix`, one after the other.
pub fn each(
    reader: &dyn Reader,
    prefix: &str,
    mut with: impl FnMut(String, Stored) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = reader.list(prefix, after.as_deref(), PAGE)?;
        for (key, stored) in page.items {
            with(key, stored)?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// All keys that start with `prefix`.
pub fn list_all(reader: &dyn Reader, prefix: &str) -> Result<Vec<(String, Stored)>> {
    let mut all = Vec::new();
    each(reader, prefix, |key, stored| {
        all.push((key, stored));
        Ok(())
    })?;
    Ok(all)
}

/// All index entries that start with `prefix`, one after the other.
pub fn each_entry(
    reader: &dyn Reader,
    prefix: &str,
    mut with: impl FnMut(String, String) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = reader.index(prefix, after.as_deref(), PAGE)?;
        for (key, value) in page.items {
            with(key, value)?;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What a write makes of the index: entries to remove, entries to put.
fn reindex(write: &Write, standing: Option<&[u8]>) -> Result<(Vec<String>, Entries)> {
    let of = |value: Option<&[u8]>| match value {
        Some(value) => index::of(&write.key, value),
        None => Ok(Entries::new()),
    };
    let (before, mut after) = (of(standing)?, of(write.value.as_deref())?);
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.cloned().collect();
    after.retain(|key, value| before.get(key) != Some(value));
    Ok((gone, after))
}

/// The refusal of a batch whose expectation does not hold.
fn conflict(key: &str) -> Error {
    Error::aborted(format!(
        "record {key} was changed by another operation meanwhile: try again"
    ))
}

/// Checks the change against what stands there.
fn check(write: &Write, standing: Option<Revision>) -> Result<()> {
    if write.expect == standing {
        return Ok(());
    }
    Err(conflict(&write.key))
}

/// Refuses a batch that changes one key twice: its outcome would hang on order.
fn check_distinct(batch: &[Write]) -> Result<()> {
    let mut keys: Vec<_> = batch.iter().map(|w| &w.key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Error::internal(format!(
            "one batch changes record {} twice",
            pair[0]
        ))),
    }
}
