// SPDX-License-Identifier: Apache-2.0
//! What is written together: batches with their index, in one commit.

use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};

use super::{INDEX, META, RECORDS, REVISION_KEY, failed, group::Pending};
use crate::{
    control::{
        index,
        store::{Revision, Write, check, reindex},
    },
    error::{Error, Result},
    host::crash::{self, CrashPoint},
};

/// Why a batch was not written.
enum Unwritten {
    /// By what stands there: the others of its group are.
    Refused(Error),
    /// By the disk: none of its group is.
    Broken(Error),
}

/// Makes the index of a transaction anew.
pub(super) fn build_index(transaction: &WriteTransaction) -> Result<u64> {
    transaction.delete_table(INDEX).map_err(failed("write"))?;
    let records = transaction.open_table(RECORDS).map_err(failed("read"))?;
    let mut entries = transaction.open_table(INDEX).map_err(failed("write"))?;
    let mut count = 0;
    for record in records.iter().map_err(failed("read"))? {
        let (key, value) = record.map_err(failed("read"))?;
        for (key, told) in index::of(key.value(), value.value().1)? {
            let put = entries.insert(key.as_str(), told.as_str());
            put.map_err(failed("write"))?;
            count += 1;
        }
    }
    Ok(count)
}

pub(super) fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut transaction = database.begin_write().map_err(failed("write"))?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(failed("write"))?;
    Ok(transaction)
}

/// Writes each batch whose expectations hold, one after the other, in one commit.
pub(super) fn commit(database: &Database, group: &[Arc<Pending>]) -> Result<Vec<Result<Revision>>> {
    let transaction = begin(database)?;
    let mut answers = Vec::new();
    let changed = {
        let mut meta = transaction.open_table(META).map_err(failed("write"))?;
        let mut records = transaction.open_table(RECORDS).map_err(failed("write"))?;
        let mut index = transaction.open_table(INDEX).map_err(failed("write"))?;
        let last = meta.get(REVISION_KEY).map_err(failed("read"))?;
        let first = last.map_or(0, |v| v.value());
        let mut revision = first;
        for pending in group {
            let answer = match put(&mut records, &mut index, &pending.batch, revision + 1) {
                Ok(()) => {
                    revision += 1;
                    Ok(Revision(revision))
                }
                Err(Unwritten::Refused(error)) => Err(error),
                Err(Unwritten::Broken(error)) => return Err(error),
            };
            answers.push(answer);
        }
        meta.insert(REVISION_KEY, revision)
            .map_err(failed("write"))?;
        revision > first
    };
    if changed {
        crash::hit(CrashPoint::BatchChecked);
        transaction.commit().map_err(failed("write"))?;
        crash::hit(CrashPoint::BatchCommitted);
    }
    Ok(answers)
}

/// One batch: all checks, then all changes.
fn put(
    records: &mut Table<'_, &'static str, (u64, &'static [u8])>,
    entries: &mut Table<'_, &'static str, &'static str>,
    batch: &[Write],
    revision: u64,
) -> Result<(), Unwritten> {
    let broken = |e| Unwritten::Broken(failed("write")(e));
    let mut changes = Vec::new();
    for write in batch {
        let standing = records.get(write.key.as_str()).map_err(broken)?;
        let standing = standing.as_ref().map(|v| v.value());
        check(write, standing.map(|s| Revision(s.0))).map_err(Unwritten::Refused)?;
        let change = reindex(write, standing.map(|s| s.1)).map_err(Unwritten::Refused)?;
        changes.push(change);
    }
    for (write, (gone, put)) in batch.iter().zip(changes) {
        let key = write.key.as_str();
        match &write.value {
            Some(value) => records.insert(key, (revision, value.as_slice())).map(drop),
            None => records.remove(key).map(drop),
        }
        .map_err(broken)?;
        for key in gone {
            entries.remove(key.as_str()).map_err(broken)?;
        }
        for (key, told) in put {
            entries
                .insert(key.as_str(), told.as_str())
                .map_err(broken)?;
        }
    }
    Ok(())
}
