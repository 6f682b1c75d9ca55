// SPDX-License-Identifier: Apache-2.0
//! The embedded store: one file, ACID, fsynced at every batch.

use std::{
    fs::{File, OpenOptions},
    ops::Bound,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
    backends::FileBackend,
};

use super::{FORMAT, Page, Revision, Store, Stored, Write, check, check_distinct};
use crate::error::{Error, Result};

const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const REVISION_KEY: &str = "revision";

/// Keys and values in a file.
pub struct RedbStore {
    database: Database,
}

/// Puts what was attempted before an error of the database.
fn failed<E: std::error::Error + Send + Sync + 'static>(
    attempted: &'static str,
) -> impl FnOnce(E) -> Error {
    move |e| Error::internal(format!("cannot {attempted} the store")).with_source(e)
}

impl RedbStore {
    /// Opens the file, or makes it. One process at a time.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let made = !path.exists();
        // It holds volume and publish contexts: for its owner alone.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| {
                Error::internal(format!("cannot open the store {shown}")).with_source(e)
            })?;
        let database = FileBackend::new(file)
            .and_then(|backend| Builder::new().create_with_backend(backend))
            .map_err(|e| match e {
                DatabaseError::DatabaseAlreadyOpen => Error::precondition(format!(
                    "another process has the store {shown} open: stop it first"
                )),
                other => {
                    Error::internal(format!("cannot open the store {shown}")).with_source(other)
                }
            })?;
        let store = Self { database };
        store
            .check_format()
            .map_err(|e| e.context(format!("store {shown}")))?;
        if made && let Some(parent) = path.parent() {
            // The name of the file must survive a power cut as well.
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(|e| {
                    Error::internal(format!("cannot sync the directory of the store {shown}"))
                        .with_source(e)
                })?;
        }
        Ok(store)
    }

    fn check_format(&self) -> Result<()> {
        let transaction = self.begin()?;
        {
            let mut meta = transaction.open_table(META).map_err(failed("read"))?;
            let found = meta
                .get(FORMAT_KEY)
                .map_err(failed("read"))?
                .map(|v| v.value());
            match found {
                None => {
                    meta.insert(FORMAT_KEY, u64::from(FORMAT))
                        .map_err(failed("write"))?;
                }
                Some(found) if found > u64::from(FORMAT) => {
                    return Err(Error::precondition(format!(
                        "its format is {found}, this version reads formats up to {FORMAT}: use the newer version that wrote it"
                    )));
                }
                Some(_) => {}
            }
            transaction.open_table(RECORDS).map_err(failed("read"))?;
        }
        transaction.commit().map_err(failed("write"))
    }

    fn begin(&self) -> Result<redb::WriteTransaction> {
        let mut transaction = self.database.begin_write().map_err(failed("write"))?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(failed("write"))?;
        Ok(transaction)
    }
}

fn stored((revision, value): (u64, &[u8])) -> Stored {
    Stored {
        revision: Revision(revision),
        value: value.to_vec(),
    }
}

impl Store for RedbStore {
    fn get(&self, key: &str) -> Result<Option<Stored>> {
        let transaction = self.database.begin_read().map_err(failed("read"))?;
        let records = transaction.open_table(RECORDS).map_err(failed("read"))?;
        let found = records.get(key).map_err(failed("read"))?;
        Ok(found.map(|v| stored(v.value())))
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let transaction = self.database.begin_read().map_err(failed("read"))?;
        let records = transaction.open_table(RECORDS).map_err(failed("read"))?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        for entry in records
            .range::<&str>((start, Bound::Unbounded))
            .map_err(failed("read"))?
        {
            let (key, value) = entry.map_err(failed("read"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|(k, _)| k.clone());
                break;
            }
            page.items
                .push((key.value().to_owned(), stored(value.value())));
        }
        Ok(page)
    }

    fn write(&self, batch: &[Write]) -> Result<Revision> {
        check_distinct(batch)?;
        let transaction = self.begin()?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(failed("write"))?;
            let last = meta
                .get(REVISION_KEY)
                .map_err(failed("read"))?
                .map_or(0, |v| v.value());
            let revision = last + 1;
            meta.insert(REVISION_KEY, revision)
                .map_err(failed("write"))?;
            let mut records = transaction.open_table(RECORDS).map_err(failed("write"))?;
            for write in batch {
                let standing = records
                    .get(write.key.as_str())
                    .map_err(failed("read"))?
                    .map(|v| Revision(v.value().0));
                // Leaving here drops the transaction: nothing of it is kept.
                check(write, standing)?;
                match &write.value {
                    Some(value) => records
                        .insert(write.key.as_str(), (revision, value.as_slice()))
                        .map(drop),
                    None => records.remove(write.key.as_str()).map(drop),
                }
                .map_err(failed("write"))?;
            }
            revision
        };
        transaction.commit().map_err(failed("write"))?;
        Ok(Revision(revision))
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
        let transaction = store.begin().unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .insert(FORMAT_KEY, u64::from(FORMAT) + 1)
            .unwrap();
        transaction.commit().unwrap();
        drop(store);
        let error = RedbStore::open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.full_message().contains("newer version"), "{error:?}");
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
