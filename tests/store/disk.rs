// SPDX-License-Identifier: Apache-2.0
//! A disk in memory that remembers what was written since the last sync, and
//! fails on demand.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use actor_volumes::control::store::{RedbStore, Revision, Store, Write};
use redb::{BackendError, StorageBackend};

/// What a disk writes at once, or not at all.
pub(crate) const SECTOR: usize = 512;

/// A change that a power cut may undo.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    /// As it is after the last sync.
    pub(crate) synced: Vec<u8>,
    /// As it is now.
    now: Vec<u8>,
    pub(crate) since: Vec<Change>,
    /// The next changes fail so.
    pub(crate) write_fails: Option<io::ErrorKind>,
    pub(crate) sync_fails: Option<io::ErrorKind>,
    /// How many changes are still made before they fail.
    pub(crate) made_before: usize,
    pub(crate) syncs: usize,
    /// Changes, and syncs as none, while they are recorded.
    events: Option<Vec<Option<Change>>>,
}

/// A disk; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Content>>);

impl Disk {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.lock().synced = bytes.clone();
        disk.lock().now = bytes;
        disk
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    /// Records every change and every sync from here on.
    pub(crate) fn start(&self) {
        self.lock().events = Some(Vec::new());
    }

    /// What was recorded; a sync is none.
    pub(crate) fn stop(&self) -> Vec<Option<Change>> {
        self.lock().events.take().unwrap_or_default()
    }

    pub(crate) fn open(&self) -> actor_volumes::error::Result<RedbStore> {
        let disk = self.clone();
        RedbStore::with_backend(
            "on a test disk".into(),
            Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn StorageBackend>)),
        )
    }
}

pub(crate) fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => bytes.resize(*len, 0),
        Change::Write(at, data) => {
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) -> io::Result<()> {
        if let Some(kind) = self.write_fails {
            if self.made_before == 0 {
                return Err(kind.into());
            }
            self.made_before -= 1;
        }
        apply(&mut self.now, &change);
        if let Some(events) = &mut self.events {
            events.push(Some(change.clone()));
        }
        self.since.push(change);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.lock();
        let from = offset as usize;
        let there = content.now.get(from..from + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().change(Change::Len(len as usize))
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.lock();
        if let Some(kind) = content.sync_fails {
            return Err(kind.into());
        }
        content.synced = content.now.clone();
        content.since.clear();
        content.syncs += 1;
        if let Some(events) = &mut content.events {
            events.push(None);
        }
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock()
            .change(Change::Write(offset as usize, data.to_vec()))
    }
    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, BackendError> {
        Ok(true)
    }
    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Puts a value where `expect` stands.
pub(crate) fn put(key: &str, expect: Option<Revision>, value: &str) -> Write {
    Write {
        key: key.into(),
        expect,
        value: Some(value.as_bytes().to_vec()),
    }
}

/// The two keys of a batch, which are always written together.
pub(crate) fn pair(n: usize) -> [String; 2] {
    [format!("left/{n:04}"), format!("right/{n:04}")]
}

/// Writes batch number `n` with this value over whatever stands there.
pub(crate) fn write_pair(
    store: &dyn Store,
    n: usize,
    value: &str,
) -> actor_volumes::error::Result<Revision> {
    let mut batch = Vec::new();
    for key in pair(n) {
        let expect = store.get(&key)?.map(|s| s.revision);
        batch.push(put(&key, expect, value));
    }
    store.write(&batch)
}
