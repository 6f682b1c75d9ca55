// SPDX-License-Identifier: Apache-2.0
//! Bind mounts and the mount table.
//!
//! Nothing here looks inside a mounted volume: a dead file system would hang
//! the caller.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, Statx, StatxAttributes, StatxFlags},
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

/// Shows the directory `source` at the directory `target`, without what is
/// mounted below it. The mount propagates nowhere by itself; with `read_only`
/// it refuses writes. Neither path may end in a symlink.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let from = open(source)?;
    let to = open(target)?;
    let tree = copy(from.as_fd(), to.as_fd())?;
    let restricted = make_private(tree.as_fd()).and_then(|()| {
        if !read_only {
            return Ok(());
        }
        let flags = kept_flags(&tree)? | MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(itself(tree.as_fd()), flags, c"")
    });
    drop(tree);
    if let Err(e) = restricted {
        // Never leave a mount that is more than what was asked for.
        unmount(target)?;
        return Err(e.into());
    }
    Ok(())
}

/// Mounts a copy of what `from` leads to at the directory `to`, without what is mounted
/// below it. The copy is a peer of the mount that it is of: see [`make_private`].
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = rustix::mount::open_tree(
        from,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )?;
    rustix::mount::move_mount(
        tree.as_fd(),
        "",
        to,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?;
    Ok(tree)
}

/// The mount propagates nowhere from now on, and nothing to it: what is mounted below a
/// peer of it would appear below it.
pub(super) fn make_private(tree: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::mount::mount_change(itself(tree), MountPropagationFlags::PRIVATE)
}

/// Sets attributes of the mount and of all that is mounted in it, of all or of none.
/// With `private` they propagate nowhere from now on.
#[allow(unsafe_code)]
pub(super) fn set_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    private: bool,
    users: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let users = users.map_or(Ok(0), |fd| u64::try_from(fd.as_raw_fd()));
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: if private { libc::MS_PRIVATE } else { 0 },
        userns_fd: users.map_err(io::Error::other)?,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the descriptors are open, the path is an empty C string, and the
    // kernel reads the attributes alone, whose size it is told.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// The descriptor leads to the new mount itself: no name is resolved again.
fn itself(tree: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", tree.as_raw_fd())
}

/// A remount sets every flag anew: what the file system was mounted with has to
/// be asked for again.
fn kept_flags(mount: impl AsFd) -> rustix::io::Result<MountFlags> {
    let now = rustix::fs::fstatvfs(mount)?.f_flag;
    let mut flags = MountFlags::empty();
    for (have, keep) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if now.contains(have) {
            flags |= keep;
        }
    }
    Ok(flags)
}

/// Takes away the topmost mount at `target`. Fails with EBUSY while it is in
/// use (never lazy), and with EINVAL where nothing is mounted.
pub fn unmount(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)?)
}

/// Whether something is mounted at exactly this path; a path that does not
/// exist is an error. Does not wake a network file system or an automount.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let found = stat_mount(CWD, path)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// statx of what matters about mounts; an empty path asks about `at` itself.
pub(super) fn stat_mount(at: impl AsFd, path: &Path) -> io::Result<Statx> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    if path.as_os_str().is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(at, path, flags, wanted)?;
    let known = found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
        && StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    if !known {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel does not tell mount points (Linux 5.8 or newer does)",
        ));
    }
    Ok(found)
}

/// One mount that shows a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Where.
    pub target: PathBuf,
    /// Whether the mount refuses writes.
    pub read_only: bool,
}

/// Every place of this mount namespace at which `directory`, or a directory
/// below it, is mounted. The path must have no symlink in it.
pub fn bindings(directory: &Path) -> io::Result<Vec<Binding>> {
    let id = stat_mount(CWD, directory)?.stx_mnt_id;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mounts: Vec<Row> = table
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_row(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                io::Error::other(format!("/proc/self/mountinfo has an odd line: {line}"))
            })
        })
        .collect::<io::Result<_>>()?;
    let home = mounts.iter().find(|m| m.id == id).ok_or_else(|| {
        io::Error::other(format!(
            "/proc/self/mountinfo does not list the mount of {}",
            directory.display()
        ))
    })?;
    let below = directory.strip_prefix(&home.target).map_err(|_| {
        io::Error::other(format!(
            "{} is not below its mount {}",
            directory.display(),
            home.target.display()
        ))
    })?;
    let shown = home.root.join(below);
    Ok(mounts
        .iter()
        .filter(|m| m.device == home.device && m.id != id && m.root.starts_with(&shown))
        .map(|m| Binding {
            target: m.target.clone(),
            read_only: m.read_only,
        })
        .collect())
}

/// A line of mountinfo.
struct Row {
    id: u64,
    device: Vec<u8>,
    root: PathBuf,
    target: PathBuf,
    read_only: bool,
}

fn parse_row(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let device = fields.next()?.to_vec();
    let root = fields.next()?;
    // The kernel marks the directory of a mount that was removed since.
    let root = root.strip_suffix(b"//deleted").unwrap_or(root);
    let target = fields.next()?;
    let options = fields.next()?;
    Some(Row {
        id,
        device,
        root: unescape(root),
        target: unescape(target),
        read_only: options.split(|b| *b == b',').any(|o| o == b"ro"),
    })
}

/// Blanks, tabs, newlines and backslashes are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)))
            .map(|digits| digits.iter().fold(0u32, |n, d| n * 8 + u32::from(d - b'0')))
            .and_then(|n| u8::try_from(n).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => out.push(first),
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 ro,noatime shared:1 - ext3 /dev/root rw";
        let row = parse_row(line).unwrap();
        assert_eq!((row.id, row.device), (36, b"98:0".to_vec()));
        assert_eq!(row.root, Path::new("/mnt1"));
        assert_eq!(row.target, Path::new("/mnt 2"));
        assert!(row.read_only);
        assert!(parse_row(b"36 35 98:0").is_none());
    }

    #[test]
    fn a_removed_directory_keeps_its_name() {
        let row = parse_row(b"1 2 0:5 /a//deleted /b rw - t s rw").unwrap();
        assert_eq!(row.root, Path::new("/a"));
        assert!(!row.read_only);
    }

    #[test]
    fn escapes_are_taken_back_and_other_backslashes_kept() {
        let cases: [(&[u8], &[u8]); 5] = [
            (br"\134x", br"\x"),
            (br"a\011b", b"a\tb"),
            (br"\9", br"\9"),
            (br"\777", br"\777"),
            (br"\04", br"\04"),
        ];
        for (from, to) in cases {
            assert_eq!(unescape(from).as_os_str().as_bytes(), to);
        }
    }

    #[test]
    fn the_root_is_a_mount_point_and_a_new_directory_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/")).unwrap());
        assert!(!is_mount_point(dir.path()).unwrap());
        let missing = is_mount_point(&dir.path().join("x")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(bindings(&real).unwrap(), []);
    }
}
