// SPDX-License-Identifier: Apache-2.0

use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;
use crate::keys::{KeyId, PrivateKey};

fn put(dir: &Path, name: &str, key: &PrivateKey) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(name), key.public().to_pem().unwrap()).unwrap();
}

fn ids(trusted: &TrustedKeys) -> Vec<KeyId> {
    trusted.set().ids().cloned().collect()
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

#[test]
fn a_broken_file_is_told_and_takes_no_other_key_away() {
    let dir = tempfile::tempdir().unwrap();
    let good = key();
    put(dir.path(), "good.pem", &good);
    fs::write(dir.path().join("broken.pem"), "-----BEGIN").unwrap();
    fs::write(dir.path().join("private.pem"), &*key().to_pem().unwrap()).unwrap();
    fs::write(dir.path().join("large.pem"), vec![b'x'; 1 << 20]).unwrap();
    fs::write(dir.path().join("binary.pem"), [0xff, 0xfe]).unwrap();
    fs::create_dir(dir.path().join("directory.pem")).unwrap();
    symlink("/nowhere", dir.path().join("dangling.pem")).unwrap();
    fs::write(dir.path().join("README"), "not a key").unwrap();
    let trusted = TrustedKeys::open(vec![dir.path().into()]);
    assert_eq!(ids(&trusted), [good.public().id().clone()]);
    let problems = trusted.problems();
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert!(trusted.verify("x", &good.sign("x")).is_ok());
}

#[test]
fn keys_of_all_directories_count_and_one_that_is_missing_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (key(), key());
    put(&dir.path().join("a"), "k.pem", &one);
    put(&dir.path().join("b"), "k.pem", &other);
    let dirs = ["a", "b", "missing"].map(|d| dir.path().join(d));
    let trusted = TrustedKeys::open(dirs.to_vec());
    assert_eq!(ids(&trusted).len(), 2);
    assert_eq!(trusted.problems(), [""; 0]);
}

#[tokio::test]
async fn what_changes_in_a_directory_counts_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    // As Kubernetes shows a ConfigMap.
    let version = |name: &str, key: &PrivateKey| put(&dir.path().join(name), "k.pem", key);
    let (old, new) = (key(), key());
    version("..1", &old);
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/k.pem", dir.path().join("k.pem")).unwrap();
    let trusted = Arc::new(TrustedKeys::open(vec![dir.path().into()]));
    let shutdown = CancellationToken::new();
    let kept = tokio::spawn(Arc::clone(&trusted).keep(shutdown.clone()));
    assert!(trusted.verify("x", &old.sign("x")).is_ok());
    version("..2", &new);
    symlink("..2", dir.path().join("..next")).unwrap();
    fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
    // By itself, or at once where somebody asks.
    trusted.look().await;
    let mut looks = trusted.looks.subscribe();
    while trusted.verify("x", &new.sign("x")).is_err() {
        looks.changed().await.unwrap();
    }
    assert!(
        trusted.verify("x", &old.sign("x")).is_err(),
        "it was taken back"
    );
    fs::remove_file(dir.path().join("k.pem")).unwrap();
    while trusted.verify("x", &new.sign("x")).is_ok() {
        looks.changed().await.unwrap();
    }
    shutdown.cancel();
    kept.await.unwrap();
}

#[test]
fn a_directory_that_cannot_be_read_for_once_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let one = key();
    put(dir.path(), "k.pem", &one);
    let trusted = TrustedKeys::open(vec![dir.path().into()]);
    trusted.take(vec![Err(std::io::Error::other("stale handle"))]);
    assert!(trusted.verify("x", &one.sign("x")).is_ok());
    assert!(trusted.problems()[0].contains("stale handle"));
    trusted.take(trusted.read());
    assert_eq!(trusted.problems(), [""; 0]);
}
