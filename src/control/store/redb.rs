// SPDX-License-Identifier: Apache-2.0
//! The embedded store: one file, ACID, fsynced at every commit; writes that come
//! together share one.
//!
//! After an error of the disk the database is closed and opened again, since
//! what it has in memory is not to be trusted: what was committed is there,
//! what failed is there whole or not at all, and the next write is made when the
//! disk takes it. Where a sync has failed, the store stays closed until a
//! restart: what the kernel holds of the file may not be what is on the disk.

mod backend;
mod group;
mod snapshot;
mod transaction;

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, backends::FileBackend,
};

use self::{
    backend::{Overlay, Watched},
    group::{Pending, Writers},
    snapshot::Snapshot,
    transaction::{begin, build_index, commit},
};
use super::{FORMAT, IndexPage, Page, Reader, Revision, Store, Stored, Write, check_distinct};
use crate::error::{Error, Kind, Result};

const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
const INDEX: TableDefinition<'_, &str, &str> = TableDefinition::new("index");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const REVISION_KEY: &str = "revision";

/// What the database may keep of the file in memory.
const CACHE_BYTES: usize = 64 << 20;

/// Opens what the database lies on; called again after an error of the disk.
pub type MakeBackend = dyn Fn() -> Result<Box<dyn StorageBackend>> + Send + Sync;

/// Keys and values in a file.
pub struct RedbStore {
    shown: String,
    make: Box<MakeBackend>,
    slot: RwLock<Slot>,
    writers: Writers,
    sync_failed: Arc<AtomicBool>,
    read_only: bool,
}

struct Slot {
    /// None: it could not be opened again yet.
    database: Option<Arc<Database>>,
    /// Whether it is to be opened again before it is used.
    failed: bool,
}

/// Puts what was attempted before an error of the database.
fn failed<E: Into<redb::Error>>(attempted: &'static str) -> impl FnOnce(E) -> Error {
    move |error| {
        let error = error.into();
        let kind = match &error {
            redb::Error::Io(io) => io.kind(),
            _ => ErrorKind::Other,
        };
        let (kind, hint) = match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (
                Kind::ResourceExhausted,
                ": its disk is full; make room, and it goes on by itself",
            ),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => (
                Kind::FailedPrecondition,
                ": its file may not be written; mount its file system for writing",
            ),
            _ => (Kind::Internal, ""),
        };
        Error::new(kind, format!("cannot {attempted} the store{hint}")).with_source(error)
    }
}

impl RedbStore {
    /// Opens the file, or makes it. One process at a time.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            create(path)?;
        }
        Self::open_file(path)
    }

    /// Opens a file that is there.
    fn open_file(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let path = path.to_owned();
        Self::with_backend(
            shown.clone(),
            Box::new(move || {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).open(&path);
                let file = file.map_err(|e| cannot_open(&shown, e))?;
                let backend = FileBackend::new(file).map_err(failed("open"))?;
                Ok(Box::new(backend) as Box<dyn StorageBackend>)
            }),
        )
    }

    /// Opens the file to look at it: it stays as it is, and is put in order and
    /// brought up to this version's format in memory alone, where it has to be.
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let path = path.to_owned();
        let make = move || {
            let shown = path.display().to_string();
            let file = File::open(&path).map_err(|e| cannot_open(&shown, e))?;
            let empty = file.metadata().is_ok_and(|m| m.len() == 0);
            if empty {
                return Err(Error::precondition(format!("{shown} is empty: no store")));
            }
            let backend = Overlay::new(file).map_err(failed("open"))?;
            Ok(Box::new(backend) as Box<dyn StorageBackend>)
        };
        let mut store = Self::with_backend(shown, Box::new(make))?;
        store.read_only = true;
        Ok(store)
    }

    /// Opens a store on what `make` gives.
    pub fn with_backend(shown: String, make: Box<MakeBackend>) -> Result<Self> {
        let store = Self {
            slot: RwLock::new(Slot {
                database: None,
                failed: false,
            }),
            shown,
            make,
            writers: Writers::default(),
            sync_failed: Arc::default(),
            read_only: false,
        };
        let database = store.open_database(true)?;
        store.slot_mut().database = Some(Arc::new(database));
        Ok(store)
    }

    fn open_database(&self, may_be_new: bool) -> Result<Database> {
        let shown = &self.shown;
        let watched = Watched {
            inner: (self.make)()?,
            sync_failed: Arc::clone(&self.sync_failed),
        };
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create_with_backend(watched).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => Error::precondition(format!(
                "another process has the store {shown} open: stop it first"
            )),
            other => failed("open")(other).context(shown),
        })?;
        prepare(&database, may_be_new).map_err(|e| e.context(format!("store {shown}")))?;
        Ok(database)
    }

    fn slot_mut(&self) -> std::sync::RwLockWriteGuard<'_, Slot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, opened again where it failed.
    fn database(&self) -> Result<Arc<Database>> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(Error::internal(format!(
                "the store {} is closed, since its disk failed to sync: look after the disk, then restart",
                self.shown
            )));
        }
        {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            if let (Some(database), false) = (&slot.database, slot.failed) {
                return Ok(Arc::clone(database));
            }
        }
        let mut slot = self.slot_mut();
        if let (Some(database), false) = (&slot.database, slot.failed) {
            return Ok(Arc::clone(database));
        }
        if let Some(last) = slot.database.take()
            && let Err(last) = Arc::try_unwrap(last)
        {
            // Someone still reads from it.
            slot.database = Some(last);
            return Err(Error::unavailable(format!(
                "the store {} is being opened again after an error of its disk: try again",
                self.shown
            )));
        }
        let database = Arc::new(self.open_database(false)?);
        *slot = Slot {
            database: Some(Arc::clone(&database)),
            failed: false,
        };
        tracing::warn!(store = %self.shown, "the store was opened again after an error of its disk");
        Ok(database)
    }

    fn read(&self) -> Result<Snapshot> {
        let database = self.database()?;
        let read = || {
            let transaction = database.begin_read().map_err(failed("read"))?;
            Ok(Snapshot {
                records: transaction.open_table(RECORDS).map_err(failed("read"))?,
                index: transaction.open_table(INDEX).map_err(failed("read"))?,
                _open: Arc::clone(&database),
            })
        };
        read().inspect_err(|_: &Error| self.slot_mut().failed = true)
    }

    fn commit(&self, group: &[Arc<Pending>]) -> Result<Vec<Result<Revision>>> {
        let database = self.database()?;
        let done = commit(&database, group);
        drop(database);
        done.inspect_err(|error| {
            tracing::error!(store = %self.shown, error = %error.full_message(), "a write to the store failed");
            self.slot_mut().failed = true;
        })
    }

    /// Makes the index anew from the records. Gives the number of its entries.
    pub fn rebuild_index(&self) -> Result<u64> {
        if self.read_only {
            return Err(self.refuse());
        }
        let database = self.database()?;
        let transaction = begin(&database)?;
        let count = build_index(&transaction)?;
        transaction.commit().map_err(failed("write"))?;
        Ok(count)
    }

    fn refuse(&self) -> Error {
        Error::precondition(format!("the store {} is open for reading", self.shown))
    }
}

/// Makes an empty store. It gets its name when it is whole: what a power cut
/// leaves of it is no store that cannot be opened.
fn create(path: &Path) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    // It holds volume and publish contexts: for its owner alone.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(new)
        .map_err(|e| cannot_open(&new.display().to_string(), e))?;
    drop(RedbStore::open_file(new)?);
    let named = std::fs::rename(new, path).and_then(|()| match path.parent() {
        // The name must survive a power cut as well.
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    named.map_err(|e| {
        Error::internal(format!("cannot name the new store {}", path.display())).with_source(e)
    })
}

fn cannot_open(shown: &str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Kind::FailedPrecondition,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("cannot open the store {shown}")).with_source(error)
}

/// Checks the format, and brings an older one up to this version's.
fn prepare(database: &Database, may_be_new: bool) -> Result<()> {
    let transaction = begin(database)?;
    let found = {
        let meta = transaction.open_table(META).map_err(failed("read"))?;
        let found = meta.get(FORMAT_KEY).map_err(failed("read"))?;
        found.map(|v| v.value())
    };
    match found {
        None if !may_be_new => {
            return Err(Error::internal("it is empty now: restore it from a backup"));
        }
        Some(found) if found > u64::from(FORMAT) => {
            return Err(Error::precondition(format!(
                "its format is {found}, this version reads formats up to {FORMAT}: use the newer version that wrote it"
            )));
        }
        Some(found) if found == u64::from(FORMAT) => return Ok(()),
        None | Some(_) => {}
    }
    transaction.open_table(RECORDS).map_err(failed("read"))?;
    build_index(&transaction)?;
    {
        let mut meta = transaction.open_table(META).map_err(failed("write"))?;
        meta.insert(FORMAT_KEY, u64::from(FORMAT))
            .map_err(failed("write"))?;
    }
    transaction.commit().map_err(failed("write"))
}

impl Reader for RedbStore {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        self.read()?.get(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        self.read()?.list(prefix, after, limit)
    }

    fn index(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<IndexPage> {
        self.read()?.index(prefix, after, limit)
    }
}

impl Store for RedbStore {
    fn snapshot(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self.read()?))
    }

    fn write(&self, batch: &[Write]) -> Result<Revision> {
        if self.read_only {
            return Err(self.refuse());
        }
        check_distinct(batch)?;
        self.writers.write(batch, |group| self.commit(group))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_embedded_store_keeps_the_promises_of_a_store() {
        let dir = tempfile::tempdir().unwrap();
        super::super::suite::run(&mut |name| {
            Box::new(RedbStore::open(&dir.path().join(name)).unwrap())
        });
    }

    #[test]
    fn a_reopened_store_has_what_was_written_and_goes_on_counting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        let write = |key: &str| Write {
            key: key.into(),
            expect: None,
            value: Some(b"x".to_vec()),
        };
        let first = RedbStore::open(&path)
            .unwrap()
            .write(&[write("a")])
            .unwrap();
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(store.get("a").unwrap().unwrap().revision, first);
        assert!(store.write(&[write("b")]).unwrap() > first);
    }

    #[test]
    fn a_store_of_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        let store = RedbStore::open(&path).unwrap();
        let database = store.database().unwrap();
        let transaction = begin(&database).unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .insert(FORMAT_KEY, u64::from(FORMAT) + 1)
            .unwrap();
        transaction.commit().unwrap();
        drop((database, store));
        let error = RedbStore::open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.full_message().contains("newer version"), "{error:?}");
    }

    #[test]
    fn what_a_power_cut_left_of_a_new_store_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        std::fs::write(dir.path().join("control.redb.new"), b"torn").unwrap();
        RedbStore::open(&path).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        // With its own name, it is never taken for a new one.
        std::fs::write(&path, b"torn").unwrap();
        assert!(RedbStore::open(&path).is_err());
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        let _store = RedbStore::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = RedbStore::open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
    }
}
