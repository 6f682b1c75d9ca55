// SPDX-License-Identifier: Apache-2.0
//! Whether a mount can be shown with other owners: the mapping of a user namespace
//! between what is on the disk and what a container sees. Only for the helper: it
//! touches a mounted volume.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::OpenTreeFlags,
};

use super::{enter, mount, mountinfo::Identity};

/// What keeps the owners of a mount from being mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// The kernel has no such mounts.
    Kernel,
    /// Its file system, or one mounted in it, has none.
    FileSystem,
    /// The process may not make such mounts, or it is one already.
    Privilege,
}

/// Maps the owners of a copy of the mount at this path, which must show this, by the user
/// namespace of a process. The copy is seen nowhere, and gone with the answer.
pub fn can_map(path: &Path, shows: &Identity, process: u32) -> io::Result<()> {
    let root = enter::root(path, shows)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = format!("/proc/{process}/ns/user");
    let namespace = rustix::fs::open(&namespace, flags, Mode::empty()).map_err(|e| {
        // Without its errno, which would say something else of the mount.
        io::Error::other(format!("cannot open {namespace}: {}", io::Error::from(e)))
    })?;
    // As it is bound for the container: with all that is mounted in it.
    let copy = rustix::mount::open_tree(
        root.as_fd(),
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    map(copy.as_fd(), namespace.as_fd())
}

/// Shows the copy, which must be mounted nowhere, with the owners of this user namespace.
pub(super) fn map(copy: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    mount::set_attributes(copy, libc::MOUNT_ATTR_IDMAP, false, Some(namespace))
}

/// What is lacking, by the errno of a failure; none: something else failed.
pub fn lacking(errno: i32) -> Option<Lacking> {
    [
        (Errno::NOSYS, Lacking::Kernel),
        (Errno::INVAL, Lacking::FileSystem),
        (Errno::PERM, Lacking::Privilege),
    ]
    .into_iter()
    .find(|(e, _)| e.raw_os_error() == errno)
    .map(|(_, lacking)| lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_mount_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let shows = Identity {
            device: "0:1".into(),
            root: "/".into(),
        };
        let refused = can_map(dir.path(), &shows, std::process::id()).unwrap_err();
        assert!(refused.to_string().contains("another mount"), "{refused}");
    }

    #[test]
    fn what_is_lacking_is_told_by_the_errno() {
        assert_eq!(lacking(38), Some(Lacking::Kernel));
        assert_eq!(lacking(22), Some(Lacking::FileSystem));
        assert_eq!(lacking(1), Some(Lacking::Privilege));
        assert_eq!(lacking(5), None);
    }
}
