// SPDX-License-Identifier: Apache-2.0
//! Directories of a volume that somebody else changes meanwhile: links in the place
//! of directories lead nowhere.

#![allow(clippy::unwrap_used)] // the whole file is a test

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use actor_volumes::host::{
    mount,
    mountinfo::{self, Identity},
    sub_path::{self, errno, is_content, resolve},
};

/// Rounds of whoever looks.
const ROUNDS: usize = 5_000;

/// A volume, what lies beside it, and somebody who changes `a` of it all the time.
struct Scene {
    dir: tempfile::TempDir,
    ended: Arc<AtomicBool>,
    swaps: Arc<AtomicUsize>,
    swapping: Option<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "volume/a/b",
            "volume/c/b",
            "outside/b",
            "outside/empty",
            "at",
        ] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/b/secret"), "x").unwrap();
        Self {
            dir,
            ended: Arc::default(),
            swaps: Arc::default(),
            swapping: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn swap(&mut self) {
        let (volume, outside) = (self.path("volume"), self.path("outside"));
        let (ended, swaps) = (Arc::clone(&self.ended), Arc::clone(&self.swaps));
        self.swapping = Some(thread::spawn(move || {
            let targets = [
                PathBuf::from("/"),
                "..".into(),
                "../outside".into(),
                outside,
                "c".into(),
                "/proc/self/root".into(),
            ];
            for (n, target) in targets.iter().cycle().enumerate() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // The directory above, and the one itself; there is always something.
                let (name, link, over) = match n % 2 {
                    0 => ("a", "link", "over"),
                    _ => ("a/b", "a/link", "a/over"),
                };
                let [name, link, over] = [name, link, over].map(|n| volume.join(n));
                symlink("/", &link).unwrap();
                exchange(&name, &link);
                symlink(target, &over).unwrap();
                fs::rename(&over, &name).unwrap();
                exchange(&name, &link);
                fs::remove_file(&link).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Until so many rounds were made by both.
    fn race(&mut self, mut look: impl FnMut() -> io::Result<()>) -> (usize, usize) {
        self.swap();
        let (mut found, mut refused) = (0, 0);
        while found + refused < ROUNDS
            || self.swaps.load(Ordering::Relaxed) < ROUNDS / 5
            || found == 0
            || refused == 0
        {
            let swapping = self.swapping.as_ref().unwrap();
            assert!(!swapping.is_finished(), "nobody swaps any more");
            match look() {
                Ok(()) => found += 1,
                Err(e) => {
                    assert!(errno(&e).is_some_and(is_content), "{e}");
                    refused += 1;
                }
            }
        }
        self.ended.store(true, Ordering::Relaxed);
        self.swapping.take().unwrap().join().unwrap();
        (found, refused)
    }

    fn nothing_outside_was_touched(&self) {
        let names = |dir: &str| {
            let entries = fs::read_dir(self.path(dir)).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("outside"), ["b", "empty"]);
        assert_eq!(names("outside/b"), ["secret"]);
        assert_eq!(names("outside/empty").len(), 0);
        let beside: Vec<_> = names(".").into_iter().filter(|n| n != "at").collect();
        assert_eq!(beside, ["outside", "volume"]);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(swapping) = self.swapping.take() {
            let _ = swapping.join();
        }
        let _ = sub_path::take_away(&self.path("at"));
        let _ = sub_path::take_away(&self.path("volume/m"));
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

fn opened(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// Where the descriptor leads, as the kernel says.
fn leads_to(fd: &OwnedFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

fn what_is_at(path: &Path) -> Option<Identity> {
    let table = mountinfo::own().unwrap();
    let found = table.into_iter().rev().find(|m| m.mount_point == path);
    found.map(|m| m.identity)
}

#[test]
fn whoever_swaps_directories_for_links_gets_nobody_out_of_the_volume() {
    for make in [false, true] {
        let mut scene = Scene::new();
        let volume = scene.path("volume");
        let root = opened(&volume);
        let (found, refused) = scene.race(|| {
            let fd = resolve(&root, ["a", "b"], make)?;
            let at = leads_to(&fd);
            assert!(at.starts_with(&volume), "{}", at.display());
            Ok(())
        });
        println!("make {make}: {found} found, {refused} refused");
        scene.nothing_outside_was_touched();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_mounted_while_links_are_swapped_is_of_the_volume() {
    let mut scene = Scene::new();
    let (volume, mounted, at) = (
        scene.path("volume"),
        scene.path("volume/m"),
        scene.path("at"),
    );
    fs::create_dir(&mounted).unwrap();
    mount::bind(&volume, &mounted, false).unwrap();
    let shows = what_is_at(&mounted).unwrap();
    let (found, refused) = scene.race(|| {
        sub_path::show(&mounted, &shows, ["a", "b"], true, &at)?;
        let now = what_is_at(&at).unwrap();
        assert!(shows.contains(&now), "{now:?}");
        assert!(!at.join("secret").exists());
        Ok(())
    });
    println!("{found} mounted, {refused} refused");
    assert!(sub_path::take_away(&at).unwrap() || found > 0);
    scene.nothing_outside_was_touched();
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_mounted_stays_what_it_is_when_links_come_later() {
    let scene = Scene::new();
    let (volume, mounted, at) = (
        scene.path("volume"),
        scene.path("volume/m"),
        scene.path("at"),
    );
    fs::create_dir(&mounted).unwrap();
    mount::bind(&volume, &mounted, false).unwrap();
    let shows = what_is_at(&mounted).unwrap();
    fs::write(volume.join("a/b/own"), "x").unwrap();
    sub_path::show(&mounted, &shows, ["a", "b"], false, &at).unwrap();
    let inode = sub_path::inode(&at).unwrap();
    assert_eq!(inode, fs::metadata(volume.join("a/b")).unwrap().ino());
    fs::rename(volume.join("a"), volume.join("x")).unwrap();
    symlink(scene.path("outside"), volume.join("a")).unwrap();
    assert!(at.join("own").exists() && !at.join("secret").exists());
    assert_eq!(sub_path::inode(&at).unwrap(), inode);
    let refused = sub_path::show(&mounted, &shows, ["a", "b"], true, &at).unwrap_err();
    assert!(
        refused.to_string().contains("\"a\" is a symbolic link"),
        "{refused}"
    );

    // Another volume's mount, or none, is none of ours.
    let other = Identity {
        root: "/other".into(),
        ..shows.clone()
    };
    assert!(sub_path::show(&mounted, &other, ["c"], true, &at).is_err());
    assert!(sub_path::show(&volume, &shows, ["c"], true, &at).is_err());
    // What is mounted in the volume is not entered.
    let inner = sub_path::show(&mounted, &shows, ["m"], false, &at);
    inner.unwrap();
    sub_path::take_away(&at).unwrap();
    mount::bind(&scene.path("outside"), &mounted.join("c"), false).unwrap();
    let refused = sub_path::show(&mounted, &shows, ["c", "b"], true, &at).unwrap_err();
    assert!(
        refused.to_string().contains("something else is mounted"),
        "{refused}"
    );
    assert!(sub_path::take_away(&mounted.join("c")).unwrap());
    assert!(!sub_path::take_away(&at).unwrap());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_read_only_volume_gets_no_new_directories_and_a_copy_is_no_peer() {
    let scene = Scene::new();
    let (volume, mounted, at) = (
        scene.path("volume"),
        scene.path("volume/m"),
        scene.path("at"),
    );
    fs::create_dir(&mounted).unwrap();
    mount::bind(&volume, &mounted, true).unwrap();
    let shows = what_is_at(&mounted).unwrap();
    let refused = sub_path::show(&mounted, &shows, ["new"], true, &at).unwrap_err();
    assert!(
        refused.to_string().contains("the volume is read-only"),
        "{refused}"
    );
    sub_path::show(&mounted, &shows, ["a"], true, &at).unwrap();
    assert!(fs::write(at.join("f"), "x").is_err());
    let table = mountinfo::own().unwrap();
    let found = table.iter().rev().find(|m| m.mount_point == at).unwrap();
    assert_eq!((found.shared, found.masters.len()), (None, 0));
}
