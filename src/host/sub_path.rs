// SPDX-License-Identifier: Apache-2.0
//! A directory of a mounted volume, shown at a place of its own. Only for the
//! helper: it enters the volume.
//!
//! Whoever has the volume may change it meanwhile, and puts links where
//! directories were. So every name is resolved from the descriptor of the
//! directory above it, by openat2(2), which follows no link and leaves neither
//! the volume nor its mount; and what was found is mounted by its descriptor. No
//! path into the volume is looked up twice.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
    mount::UnmountFlags,
};

use super::{
    enter,
    mount::{self, stat_mount},
    mountinfo::Identity,
};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// What new directories have of the volume's root: not the mode's set-user-id bit.
const MODE: Mode = Mode::RWXU
    .union(Mode::RWXG)
    .union(Mode::RWXO)
    .union(Mode::SGID)
    .union(Mode::SVTX);

/// The directory with this path below `root`. Where `make` says so, what is
/// missing is made, with owner, group and mode of `root`.
///
/// Errors have an [`errno`], and name the part that failed.
pub fn resolve<'p>(
    root: &OwnedFd,
    parts: impl IntoIterator<Item = &'p str>,
    make: bool,
) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for part in parts {
        let from = at.as_ref().unwrap_or(root);
        let next = match step(from, part) {
            Err(Errno::NOENT) if make => {
                make_directory(root, from, part).map_err(|e| named(e, part))?;
                step(from, part)
            }
            found => found,
        };
        at = Some(next.map_err(|e| named(e, part))?);
    }
    at.ok_or_else(|| io::Error::from(Errno::INVAL))
}

fn step(from: &OwnedFd, part: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    // The kernel asks for another try where something was moved meanwhile.
    loop {
        match rustix::fs::openat2(from, part, DIRECTORY | OFlags::PATH, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            found => return found,
        }
    }
}

fn make_directory(root: &OwnedFd, from: &OwnedFd, part: &str) -> rustix::io::Result<()> {
    let like = rustix::fs::fstat(root)?;
    let mode = Mode::from_raw_mode(like.st_mode) & MODE;
    match rustix::fs::mkdirat(from, part, mode) {
        Ok(()) => {}
        // Somebody else made it, or something else: the next step sees.
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e),
    }
    let made = step(from, part)?;
    // `.` leads to the very directory of the descriptor.
    let dir = rustix::fs::openat(&made, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?;
    let now = rustix::fs::fstat(&dir)?;
    // Another one may have been put in its place: it keeps what it has.
    if now.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid) {
        let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
        rustix::fs::fchown(&dir, Some(uid), Some(gid))?;
    }
    if Mode::from_raw_mode(now.st_mode) & MODE != mode {
        rustix::fs::fchmod(&dir, mode)?;
    }
    Ok(())
}

/// Shows the directory at this path of the volume, whose mount at `published` must
/// show this, at `target`; see [`resolve`].
pub fn show<'p>(
    published: &Path,
    shows: &Identity,
    parts: impl IntoIterator<Item = &'p str>,
    make: bool,
    target: &Path,
) -> io::Result<()> {
    let root = enter::root(published, shows)?;
    bind(&resolve(&root, parts, make)?, target)
}

/// Shows the directory at `target`, an empty directory outside the volume, without
/// what is mounted below it. What is mounted at `target` already goes first.
pub fn bind(directory: &OwnedFd, target: &Path) -> io::Result<()> {
    take_away(target)?;
    let to = rustix::fs::open(
        target,
        DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    let tree = mount::copy(directory.as_fd(), to.as_fd())?;
    if let Err(e) = mount::make_private(tree.as_fd()) {
        drop(tree);
        take_away(target)?;
        return Err(e.into());
    }
    Ok(())
}

/// Takes away every mount at exactly this path, never lazily; true: there was one.
/// Fails with EBUSY while one is in use.
pub fn take_away(target: &Path) -> io::Result<bool> {
    let mut any = false;
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => any = true,
            // EINVAL: no mount is there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(any),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The inode of the root of the mount at this path, asked of no server. It stays
/// when the directory is renamed.
pub fn inode(path: &Path) -> io::Result<u64> {
    Ok(stat_mount(CWD, path)?.stx_ino)
}

/// The errno of an error of this file.
pub fn errno(error: &io::Error) -> Option<i32> {
    let named = error.get_ref().and_then(|e| e.downcast_ref::<Named>());
    error
        .raw_os_error()
        .or(named.map(|n| n.errno.raw_os_error()))
}

/// Whether the errno says that what is in the volume is not what was asked for: it
/// is for whoever writes there to change that.
pub fn is_content(errno: i32) -> bool {
    let content = [
        Errno::LOOP,
        Errno::NOTDIR,
        Errno::XDEV,
        Errno::NOENT,
        Errno::ROFS,
        Errno::ACCESS,
        Errno::NAMETOOLONG,
        Errno::DQUOT,
        Errno::NOSPC,
    ];
    content.iter().any(|e| e.raw_os_error() == errno)
}

/// What is wrong with a part of the path.
#[derive(Debug, thiserror::Error)]
#[error("{part:?} {why}")]
struct Named {
    part: String,
    why: String,
    errno: Errno,
}

fn named(errno: Errno, part: &str) -> io::Error {
    let why = match errno {
        Errno::LOOP => "is a symbolic link, which is never followed".to_owned(),
        Errno::NOTDIR => "is no directory".to_owned(),
        Errno::XDEV => "is a place where something else is mounted".to_owned(),
        Errno::NOENT => "is not there".to_owned(),
        Errno::ROFS => "is not there, and the volume is read-only".to_owned(),
        Errno::NOSYS => {
            "cannot be resolved safely: openat2 is missing (Linux 5.6 has it)".to_owned()
        }
        other => format!("cannot be opened: {other}"),
    };
    let part = part.to_owned();
    io::Error::other(Named { part, why, errno })
}

#[cfg(test)]
mod tests;
