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
pub use redb::RedbStore;

use crate::error::{Error, Result};

/// The format of the store: which keys there are and how values are wrapped.
/// A store of a higher format is refused.
pub const FORMAT: u32 = 1;

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

/// An ACID store. Calls block; run them where that is allowed.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Stored>>;

    /// At most `limit` keys that start with `prefix`, in order, after the key `after`.
    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page>;

    /// Makes all changes or none; they are durable when it returns. `Aborted`
    /// when a key does not stand at the revision expected.
    fn write(&self, batch: &[Write]) -> Result<Revision>;
}

/// All keys that start with `prefix`.
pub fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<(String, Stored)>> {
    const PAGE: usize = 512;
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE)?;
        all.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
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
