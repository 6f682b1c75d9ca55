// SPDX-License-Identifier: Apache-2.0
//! Bind mounts and tree removal with real mounts.

#![allow(clippy::unwrap_used)] // the whole file is a test

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use actor_volumes::host::{
    enter::own,
    mount::{Binding, bind, bindings, is_mount_point, unmount},
    mountinfo::{self, Identity},
    tree::remove_tree,
};

/// A directory with a few others in it, free of mounts at the end.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "target", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let source = self.path("source");
        for binding in bindings(&source).unwrap_or_default().iter().rev() {
            let _ = unmount(&binding.target);
        }
    }
}

fn write(path: &Path) -> io::Result<()> {
    fs::write(path, "x")
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_bind_shows_the_source_until_it_is_unmounted() {
    let place = Place::new();
    let (source, target) = (place.path("source"), place.path("target"));
    bind(&source, &target, false).unwrap();
    assert!(is_mount_point(&target).unwrap());
    write(&target.join("f")).unwrap();
    assert!(source.join("f").exists());
    unmount(&target).unwrap();
    assert!(!is_mount_point(&target).unwrap());
    assert!(!target.join("f").exists());
    let nothing = unmount(&target).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::InvalidInput);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_read_only_bind_refuses_writes_and_leaves_the_source_writable() {
    let place = Place::new();
    let (source, target) = (place.path("source"), place.path("target"));
    bind(&source, &target, true).unwrap();
    let refused = write(&target.join("f")).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    write(&source.join("f")).unwrap();
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_mount_table_tells_where_a_directory_is_shown() {
    let place = Place::new();
    let (source, target, other) = (
        place.path("source"),
        place.path("target"),
        place.path("other"),
    );
    assert_eq!(bindings(&source).unwrap(), []);
    bind(&source, &target, false).unwrap();
    // A bind of a bind shows the same directory.
    bind(&target, &other, true).unwrap();
    let binding = |target: &Path, read_only| Binding {
        target: target.into(),
        read_only,
    };
    let both = [binding(&target, false), binding(&other, true)];
    assert_eq!(bindings(&source).unwrap(), both);
    // What is above or beside it is not it.
    assert_eq!(bindings(&place.path("target")).unwrap().len(), 1);
    unmount(&other).unwrap();
    unmount(&target).unwrap();
    assert_eq!(bindings(&source).unwrap(), []);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_busy_mount_is_not_taken_away() {
    let place = Place::new();
    let (source, target) = (place.path("source"), place.path("target"));
    bind(&source, &target, false).unwrap();
    let open = fs::File::create(target.join("f")).unwrap();
    let busy = unmount(&target).unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
    assert!(is_mount_point(&target).unwrap());
    drop(open);
    unmount(&target).unwrap();
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_symlink_is_neither_bound_nor_bound_over() {
    let place = Place::new();
    let (source, target) = (place.path("source"), place.path("target"));
    let link = place.path("link");
    symlink(place.path("other"), &link).unwrap();
    assert!(bind(&source, &link, false).is_err());
    assert!(bind(&link, &target, false).is_err());
    assert!(!is_mount_point(&place.path("other")).unwrap());
    assert!(!is_mount_point(&target).unwrap());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_tree_is_not_removed_through_a_mount() {
    let place = Place::new();
    let source = place.path("source");
    let deep = place.path("target/a/b");
    fs::create_dir_all(&deep).unwrap();
    write(&source.join("data")).unwrap();
    bind(&source, &deep, false).unwrap();
    let parent = fs::File::open(place.dir.path()).unwrap();
    let error = remove_tree(&parent, OsStr::new("target")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
    assert!(error.to_string().contains("target/a/b"), "{error}");
    assert!(source.join("data").exists());

    // Nor when the tree itself is a mount.
    let other = place.path("other");
    bind(&source, &other, false).unwrap();
    let error = remove_tree(&parent, OsStr::new("other")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
    assert!(source.join("data").exists());

    for binding in bindings(&source).unwrap().iter().rev() {
        unmount(&binding.target).unwrap();
    }
    remove_tree(&parent, OsStr::new("target")).unwrap();
    assert!(!place.path("target").exists());
}

/// What the topmost mount at this path shows.
fn shown(path: &Path) -> Identity {
    let table = mountinfo::own().unwrap();
    let found = table.iter().rev().find(|m| m.mount_point == path);
    found.unwrap().identity.clone()
}

#[test]
#[ignore = "needs root: run by make test"]
fn only_the_root_of_the_very_mount_is_given_to_a_group_and_only_once() {
    let place = Place::new();
    let (source, target) = (place.path("source"), place.path("target"));
    fs::create_dir(source.join("inner")).unwrap();
    bind(&source, &target, false).unwrap();
    let below = shown(&target);
    assert!(own(&target, &below, 4242).unwrap());
    let given = fs::metadata(&source).unwrap();
    assert_eq!((given.gid(), given.mode() & 0o2070), (4242, 0o2070));
    assert_eq!(fs::metadata(source.join("inner")).unwrap().gid(), 0);
    assert!(!own(&target, &below, 4242).unwrap());

    // What is mounted over it is another mount, and a link leads nowhere.
    let other = place.path("other");
    bind(&other, &target, false).unwrap();
    assert!(own(&target, &below, 4243).is_err());
    assert_eq!(fs::metadata(&other).unwrap().gid(), 0);
    unmount(&target).unwrap();
    let link = place.path("link");
    symlink(&target, &link).unwrap();
    assert!(own(&link, &below, 4243).is_err());
    assert_eq!(fs::metadata(&source).unwrap().gid(), 4242);
    unmount(&target).unwrap();

    // Where nobody may write, no group needs to.
    bind(&source, &target, true).unwrap();
    assert!(!own(&target, &shown(&target), 4243).unwrap());
    assert_eq!(fs::metadata(&source).unwrap().gid(), 4242);
}
