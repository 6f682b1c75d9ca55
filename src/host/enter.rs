// SPDX-License-Identifier: Apache-2.0
//! What enters a mounted volume, and may therefore hang for ever: only for the
//! helper, a process of its own that can be killed.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{
    mount::stat_mount,
    mountinfo::{self, Identity},
};

/// What a group needs of a directory in which it is to work: rwx, and that new
/// files are of the group too.
const GROUP: Mode = Mode::RGRP
    .union(Mode::WGRP)
    .union(Mode::XGRP)
    .union(Mode::SGID);

/// Whether the root of the mount at this path answers.
pub fn probe(path: &Path) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS)?;
    Ok(())
}

/// Gives the root directory of the mount at this path to the group: its group
/// and mode alone, nothing below it. Gives whether anything was to be done.
///
/// Works by descriptor, on the root of a mount that shows this and on nothing
/// else, whatever happens to the path meanwhile.
pub fn own(path: &Path, shows: &Identity, gid: u32) -> io::Result<bool> {
    let place = root(path, shows)?;
    // `.` leads to the very directory of the descriptor, across no mount.
    let dir = rustix::fs::openat(
        &place,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let now = rustix::fs::fstat(&dir)?;
    let mode = Mode::from_raw_mode(now.st_mode);
    if now.st_gid == gid && mode.contains(GROUP) {
        return Ok(false);
    }
    let changed = rustix::fs::fchown(&dir, None, Some(Gid::from_raw(gid)))
        .and_then(|()| rustix::fs::fchmod(&dir, mode | GROUP));
    match changed {
        Ok(()) => Ok(true),
        // Nobody can write there, so no group needs to.
        Err(Errno::ROFS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The root of the mount at this path, which must show this.
pub(super) fn root(path: &Path, shows: &Identity) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = stat_mount(&root, Path::new(""))?;
    let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    // Its id says nothing to whoever asks from another mount namespace.
    let same = |m: &mountinfo::Mount| m.id == found.stx_mnt_id && m.identity == *shows;
    if !is_root || !mountinfo::own()?.iter().any(same) {
        return Err(io::Error::other(
            "another mount, or none, is there than the one that was published",
        ));
    }
    Ok(root)
}

/// Whether this errno says that the mount is there and the file system behind it
/// is not.
pub fn is_corrupted(errno: i32) -> bool {
    let dead = [
        Errno::NOTCONN,
        // What was asked while the server of a FUSE mount died.
        Errno::CONNABORTED,
        Errno::STALE,
        Errno::IO,
        Errno::HOSTDOWN,
    ];
    dead.iter().any(|e| e.raw_os_error() == errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_mount_is_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let before = std::fs::metadata(dir.path()).unwrap();
        let table = mountinfo::own().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let home = mountinfo::home(&table, &real).unwrap();
        let refused = own(dir.path(), &home.identity, 1000).unwrap_err();
        assert!(refused.to_string().contains("another mount"), "{refused}");
        let after = std::fs::metadata(dir.path()).unwrap();
        assert_eq!(after.permissions(), before.permissions());
    }

    #[test]
    fn a_directory_answers_and_a_missing_one_says_so() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        let missing = probe(&dir.path().join("x")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(!is_corrupted(missing.raw_os_error().unwrap()));
        let dead = [107, 103, 116, 5, 112];
        assert!(dead.into_iter().all(is_corrupted));
    }
}
