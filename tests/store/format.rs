// SPDX-License-Identifier: Apache-2.0
//! A file of format 1, which had no index, is brought up to this version's.

use actor_volumes::control::{
    check,
    store::{Reader, RedbStore, Store},
};
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::sample;

const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

#[test]
fn a_file_of_format_1_gets_its_index_at_the_first_opening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    let old = Database::create(&path).unwrap();
    let transaction = old.begin_write().unwrap();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        for n in 0..20 {
            for write in sample::actor(&format!("a{n}"), "t", 2, n % 4 == 0) {
                let value = write.value.unwrap();
                records
                    .insert(write.key.as_str(), (7, value.as_slice()))
                    .unwrap();
            }
        }
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.insert("revision", 7).unwrap();
    }
    transaction.commit().unwrap();
    drop(old);

    // Looked at, it stays of format 1.
    let looked = RedbStore::open_read_only(&path).unwrap();
    assert_eq!(looked.index("active/", None, 100).unwrap().items.len(), 5);
    assert!(looked.write(&[]).is_err());
    drop(looked);
    let format = |path| {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_read().unwrap();
        let meta = transaction.open_table(META).unwrap();
        meta.get("format").unwrap().unwrap().value()
    };
    assert_eq!(format(&path), 1);

    let store = RedbStore::open(&path).unwrap();
    let checked = check::check(&*store.snapshot().unwrap()).unwrap();
    assert_eq!(checked.findings, []);
    assert_eq!(
        (checked.records["actor"], checked.records["volume"]),
        (20, 40)
    );
    // Of an actor: its template. Of a volume: its actor and its driver's id. Of
    // each of 5 resumed ones: that it is active, and 2 attachments.
    assert_eq!(checked.entries, 20 + 40 * 2 + 5 * 3);
    assert_eq!(store.write(&[]).unwrap().0, 8);
    drop(store);
    assert_eq!(format(&path), 2);
}
