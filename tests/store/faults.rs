// SPDX-License-Identifier: Apache-2.0
//! Disks that are full, may not be written, or break.

use std::{io::ErrorKind, sync::Barrier};

use actor_volumes::{
    control::store::{Reader, Store},
    error::Kind,
};

use crate::disk::{Disk, put, write_pair};

/// Fails writes so at every point of a commit, and then lets them be made again.
fn fails_and_goes_on(kind: ErrorKind, expected: Kind, said: &str) {
    let mut failed = 0;
    for made_before in 0..40 {
        let disk = Disk::default();
        let store = disk.open().unwrap();
        let first = write_pair(&store, 1, "before").unwrap();
        disk.lock().made_before = made_before;
        disk.lock().write_fails = Some(kind);
        let big = "x".repeat(200_000);
        let refused = write_pair(&store, 1, &big);
        let Err(error) = refused else {
            // So many changes there are not in one commit.
            disk.lock().write_fails = None;
            continue;
        };
        failed += 1;
        assert_eq!(error.kind(), expected, "{error:?}");
        assert!(error.full_message().contains(said), "{error:?}");
        // Still no room: it says so again, and nothing is lost of what was there.
        disk.lock().made_before = 0;
        assert!(write_pair(&store, 2, "still").is_err());
        disk.lock().write_fails = None;
        for key in ["left/0001", "right/0001"] {
            let stands = store.get(key).unwrap().unwrap();
            assert_eq!(
                (stands.value.as_slice(), stands.revision),
                (&b"before"[..], first)
            );
        }
        assert!(write_pair(&store, 1, "after").unwrap() > first);
        assert_eq!(store.get("left/0001").unwrap().unwrap().value, b"after");
        assert!(store.get("left/0002").unwrap().is_none());
    }
    assert!(failed > 3, "{failed} points of a commit failed");
}

#[test]
fn a_full_disk_refuses_a_write_and_takes_the_next_when_there_is_room() {
    let said = "its disk is full";
    fails_and_goes_on(ErrorKind::StorageFull, Kind::ResourceExhausted, said);
}

#[test]
fn a_file_that_may_not_be_written_is_named_for_that() {
    let said = "may not be written";
    fails_and_goes_on(
        ErrorKind::ReadOnlyFilesystem,
        Kind::FailedPrecondition,
        said,
    );
}

#[test]
fn a_disk_that_fails_to_write_poisons_nothing() {
    fails_and_goes_on(ErrorKind::Other, Kind::Internal, "cannot");
}

#[test]
fn after_a_failed_sync_the_store_is_closed_until_a_restart() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    write_pair(&store, 1, "before").unwrap();
    disk.lock().sync_fails = Some(ErrorKind::Other);
    assert!(write_pair(&store, 1, "lost").is_err());
    disk.lock().sync_fails = None;
    assert!(store.get("left/0001").is_err());
    let error = write_pair(&store, 2, "x").unwrap_err();
    assert!(error.full_message().contains("failed to sync"), "{error:?}");
    assert!(error.full_message().contains("restart"), "{error:?}");
    drop(store);
    // What is on the disk for sure, as after a restart of the machine.
    let synced = disk.lock().synced.clone();
    let store = Disk::of(synced).open().unwrap();
    assert_eq!(store.get("left/0001").unwrap().unwrap().value, b"before");
    write_pair(&store, 2, "x").unwrap();
}

#[test]
fn writers_at_the_same_time_share_syncs_and_one_refusal_is_one_writer_s() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 50;
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.write(&[put("taken", None, "x")]).unwrap();
    let before = disk.lock().syncs;
    let barrier = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    if writer == 0 {
                        let refused = store.write(&[put("taken", None, "y")]);
                        assert_eq!(refused.unwrap_err().kind(), Kind::Aborted);
                    } else {
                        write_pair(store, writer * ROUNDS + round, "z").unwrap();
                    }
                }
            });
        }
    });
    let syncs = disk.lock().syncs - before;
    let writes = (WRITERS - 1) * ROUNDS;
    println!("{writes} batches in {syncs} syncs");
    assert!(syncs < writes, "{syncs} syncs for {writes} batches");
    assert_eq!(store.list("left/", None, 1000).unwrap().items.len(), writes);
}
