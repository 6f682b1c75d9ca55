// SPDX-License-Identifier: Apache-2.0
//! What is on disk and what the kernel tells.

use std::{fmt::Debug, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    control::{
        check, export,
        record::{
            ActorRecord, AttachmentRecord, StorageClassRecord, TemplateRecord, TemplateRevision,
            Tombstone, VolumeRecord as ControlVolume, decode, encode,
        },
        store::{MemoryStore, Store, Write},
    },
    host::mountinfo,
    node::VolumeRecord,
};

/// What is read is written as the same.
pub(super) fn record(bytes: &[u8]) {
    if let Ok(record) = VolumeRecord::decode(bytes) {
        let again = VolumeRecord::decode(&record.encode());
        assert_eq!(again.ok(), Some(record));
    }
}

pub(super) fn mountinfo(bytes: &[u8]) {
    let table = mountinfo::parse(bytes);
    for mount in &table {
        assert!(mountinfo::home(&table, &mount.mount_point).is_some());
    }
}

/// Line by line a key, a space and a value. Each value as every kind of record; and
/// all of it as a store that is checked and exported.
pub(super) fn store(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| {
        let at = line.iter().position(|b| *b == b' ')?;
        let (key, value) = line.split_at(at);
        Some((String::from_utf8(key.to_vec()).ok()?, value.get(1..)?))
    });
    let store = Arc::new(MemoryStore::new());
    for (key, value) in lines {
        again::<ActorRecord>(&key, value);
        again::<AttachmentRecord>(&key, value);
        again::<ControlVolume>(&key, value);
        again::<StorageClassRecord>(&key, value);
        again::<TemplateRecord>(&key, value);
        again::<TemplateRevision>(&key, value);
        again::<Tombstone>(&key, value);
        // A key that is there twice keeps its first value.
        let _ = store.write(&[Write {
            key,
            expect: None,
            value: Some(value.to_vec()),
        }]);
    }
    let snapshot = store.snapshot().expect("memory can be read");
    let _ = check::check(&*snapshot);
    let _ = export::export(&*snapshot, true, |_| Ok(true));
}

fn again<T: Serialize + DeserializeOwned + Debug>(key: &str, bytes: &[u8]) {
    if let Ok(record) = decode::<T>(key, bytes) {
        let written = encode(&record).expect("what was read can be written");
        let again = decode::<T>(key, &written).expect("what was written can be read");
        let again = encode(&again).expect("what was read can be written");
        assert_eq!(String::from_utf8(again), String::from_utf8(written));
    }
}
