// SPDX-License-Identifier: Apache-2.0
//! The place of a volume in a container's root file system.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, Statx, StatxAttributes},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

use super::{
    Taking,
    container::{Container, Owner, open_in, unsupported},
    source::Source,
};
use crate::{
    error::{Error, Result},
    host::{
        mount::stat_mount,
        mountinfo::{Identity, Mount},
    },
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Of file systems that are the kernel's own: nothing is mounted in them.
const KERNELS: [(i64, &str); 4] = [
    (libc::PROC_SUPER_MAGIC, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
];

/// Mounts the copy at its place in the container, which was entered. False: it is there
/// already.
pub(super) fn put(container: &Container, source: &Source<'_>) -> Result<bool> {
    let destination = source.wanted.destination.as_str();
    mount_at(container, source)
        .map_err(|e| e.context(format_args!("cannot mount a volume at {destination}")))
}

fn mount_at(container: &Container, source: &Source<'_>) -> Result<bool> {
    let destination = Path::new(&source.wanted.destination);
    let place = resolve(container, destination)?;
    let at = stat(&place)?;
    let table = container.mounts()?;
    let there = table.iter().find(|m| m.id == at.stx_mnt_id);
    let there = there
        .ok_or_else(|| Error::precondition("the container does not see what is mounted there"))?;
    if is_mount(&at) {
        return match there.identity == source.identity {
            true => Ok(false),
            false => Err(Error::precondition(
                "something else is mounted there: take it out of the container, or choose another mountPath in the template",
            )),
        };
    }
    if there.shared.is_some() {
        return Err(Error::precondition(
            "a mount there would be seen outside the container too: set its rootfsPropagation to rprivate or rslave",
        ));
    }
    rustix::mount::move_mount(
        source.tree.as_fd(),
        "",
        place.as_fd(),
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .map_err(|e| Error::internal("move_mount").with_source(io::Error::from(e)))?;
    match verify(container, source) {
        Ok(()) => Ok(true),
        Err(e) => match undo(source) {
            Ok(()) => Err(e),
            Err(left) => Err(Error::internal(format!(
                "{}; and it stays mounted",
                e.full_message()
            ))
            .with_source(left)),
        },
    }
}

/// Whoever looks the path up now comes to the volume.
fn verify(container: &Container, source: &Source<'_>) -> Result<()> {
    let path = Path::new(&source.wanted.destination);
    let other = || {
        Error::aborted("the path leads elsewhere since: the container was changed meanwhile; retry")
    };
    let again = open_in(&container.root, path, DIRECTORY).map_err(|_| other())?;
    let (found, mounted) = (stat(&again)?, stat(&source.tree)?);
    if !is_mount(&found) || found.stx_mnt_id != mounted.stx_mnt_id {
        return Err(other());
    }
    let shown = |m: &Mount| m.id == found.stx_mnt_id && m.identity == source.identity;
    if !container.mounts()?.iter().any(shown) {
        return Err(other());
    }
    Ok(())
}

/// Takes away what was mounted just now, wherever it is.
pub(super) fn undo(source: &Source<'_>) -> io::Result<()> {
    // No name leads to it for sure. Nothing has used it yet.
    rustix::process::fchdir(&source.tree)?;
    Ok(rustix::mount::unmount(
        ".",
        UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    )?)
}

/// The place, a directory of the container; what of it is missing is made.
fn resolve(container: &Container, destination: &Path) -> Result<OwnedFd> {
    let parts = parts(destination)?;
    let path: PathBuf = parts.iter().collect();
    let place = match open_in(&container.root, &path, DIRECTORY) {
        Err(Errno::NOENT) => make(container, &parts)?,
        found => found.map_err(|e| unopened(e, destination))?,
    };
    let (found, root) = (stat(&place)?, stat(&container.root)?);
    if (found.stx_mnt_id, found.stx_ino) == (root.stx_mnt_id, root.stx_ino) {
        return Err(Error::invalid(
            "it is the root of the container's file system",
        ));
    }
    is_not_the_kernels(&place)?;
    Ok(place)
}

/// The names of the path, from the root.
fn parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>> {
    if !path.is_absolute() {
        return Err(Error::invalid("the path is not absolute"));
    }
    Ok(path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(Component::as_os_str)
        .collect())
}

/// Makes what is missing of the path, from a descriptor of the directory above it.
fn make(container: &Container, parts: &[&std::ffi::OsStr]) -> Result<OwnedFd> {
    let mut there = parts.len();
    let mut at = loop {
        there = there.saturating_sub(1);
        let above: PathBuf = parts[..there].iter().collect();
        match open_in(&container.root, &above, DIRECTORY) {
            Ok(found) => break found,
            Err(Errno::NOENT) if there > 0 => {}
            Err(e) => return Err(unopened(e, &Path::new("/").join(above))),
        }
    };
    for (n, part) in parts.iter().enumerate().skip(there) {
        let shown = Path::new("/").join(parts[..=n].iter().collect::<PathBuf>());
        if *part == ".." {
            return Err(Error::invalid(format!(
                "{} is not there, so that it cannot be left by ..",
                shown.parent().unwrap_or(&shown).display()
            )));
        }
        is_not_the_kernels(&at)?;
        let owner = container.users.as_ref().map(|(_, owner)| *owner);
        match make_directory(&at, part, owner) {
            // Whoever runs in the container was faster, or a link leads nowhere.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(unmade(e, &shown)),
        }
        at = step(&at, part).map_err(|e| unopened(e, &shown))?;
    }
    Ok(at)
}

fn step(from: &OwnedFd, part: &std::ffi::OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(from, part, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            found => return found,
        }
    }
}

/// As the container's root, where that is another user: a directory of the host's root
/// would be nobody's there, and some file systems take none.
fn make_directory(at: &OwnedFd, name: &std::ffi::OsStr, owner: Option<Owner>) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    let Some(owner) = owner else {
        return rustix::fs::mkdirat(at, name, mode);
    };
    let made = as_user(owner, || rustix::fs::mkdirat(at, name, mode));
    match made {
        // A directory that belongs to the host's root.
        Err(Errno::ACCESS | Errno::PERM) => rustix::fs::mkdirat(at, name, mode),
        made => made,
    }
}

/// Touches the file system as this user, without the capabilities of root over files.
#[allow(unsafe_code)]
fn as_user<T>(owner: Owner, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    // SAFETY: the calls take a number each, and are of this thread alone.
    let set = |uid: u32, gid: u32| unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // They tell what was; an id that is none changes nothing.
        libc::syscall(libc::SYS_setfsuid, u32::MAX) == i64::from(uid)
    };
    let done = match set(owner.uid, owner.gid) {
        true => work(),
        false => Err(Errno::PERM),
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    set(uid.as_raw(), gid.as_raw());
    done
}

fn is_not_the_kernels(at: &OwnedFd) -> Result<()> {
    let kind = rustix::fs::fstatfs(at)
        .map_err(|e| {
            Error::internal("cannot tell the file system there").with_source(io::Error::from(e))
        })?
        .f_type;
    match KERNELS.iter().find(|(magic, _)| *magic == kind) {
        None => Ok(()),
        Some((_, name)) => Err(Error::invalid(format!(
            "the path leads into the kernel's file system {name}: choose another mountPath in the template"
        ))),
    }
}

fn stat(of: &OwnedFd) -> Result<Statx> {
    stat_mount(of, Path::new("")).map_err(unsupported)
}

fn is_mount(found: &Statx) -> bool {
    found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn unopened(e: Errno, path: &Path) -> Error {
    let shown = path.display();
    match e {
        Errno::NOTDIR => Error::invalid(format!("{shown} is no directory in the container")),
        Errno::LOOP => Error::invalid(format!(
            "{shown} goes by a link of the container that leads nowhere, or out of its root file system"
        )),
        Errno::NOENT => Error::invalid(format!("{shown} leads nowhere in the container")),
        Errno::NOSYS => Error::unimplemented(
            "this kernel cannot look a path up safely: openat2 is missing (Linux 5.6 has it)",
        ),
        e => Error::internal(format!("cannot open {shown} of the container"))
            .with_source(io::Error::from(e)),
    }
}

fn unmade(e: Errno, path: &Path) -> Error {
    let shown = path.display();
    let why = match e {
        Errno::ROFS => "its root file system is read-only".to_owned(),
        e => io::Error::from(e).to_string(),
    };
    Error::precondition(format!(
        "the container has no directory {shown}, and it cannot be made ({why}): make it in the image, or use the wrapper (`actor-volumes runtime`) or `actor-volumes bundle inject`"
    ))
}

/// Those mounts of a container that show what is published, and are not its
/// specification's.
pub(super) fn of_volumes(
    table: Vec<Mount>,
    published: &[(PathBuf, Identity)],
    taking: &Taking,
) -> Vec<Mount> {
    let is_spared = |m: &Mount| {
        let mut spared = taking.spared.iter();
        spared.any(|path| Path::new(path).components().eq(m.mount_point.components()))
    };
    let is_ours = |m: &Mount| {
        let mut same = published.iter().filter(|(_, shows)| *shows == m.identity);
        // A container that has the host's directories has what is published there too.
        same.next().is_some() && !published.iter().any(|(at, _)| m.mount_point.ends_with(at))
    };
    let ours = table.into_iter().filter(|m| is_ours(m) && !is_spared(m));
    ours.collect()
}

/// Takes the mount of the container's table away; never one in use. Gives a copy of it,
/// that is mounted nowhere.
pub(super) fn take_away(container: &Container, mount: &Mount) -> Result<OwnedFd> {
    let shown = mount.mount_point.display();
    let failed = |e: Errno| match e {
        Errno::BUSY => Error::precondition(format!(
            "the volume at {shown} is in use in the container: end what has its working directory or an open file there, and try again"
        )),
        e => Error::internal(format!("cannot unmount {shown} in the container"))
            .with_source(io::Error::from(e)),
    };
    let name = go_above(container, mount)?;
    let there =
        rustix::fs::open(name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
    if stat(&there)?.stx_mnt_id != mount.id {
        return Err(Error::precondition(format!(
            "something else is mounted over the volume at {shown} in the container: unmount that first"
        )));
    }
    let copy = rustix::mount::open_tree(
        there.as_fd(),
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
    .map_err(failed)?;
    drop(there);
    rustix::mount::unmount(name, UnmountFlags::NOFOLLOW).map_err(failed)?;
    Ok(copy)
}

/// Mounts again what was taken away.
pub(super) fn put_back(container: &Container, kept: &OwnedFd, mount: &Mount) -> Result<()> {
    let name = go_above(container, mount)?;
    rustix::mount::move_mount(kept, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(
        |e| {
            Error::internal(format!(
                "the volume at {} is no longer mounted in the container",
                mount.mount_point.display()
            ))
            .with_source(io::Error::from(e))
        },
    )
}

/// Makes the directory above the mount the working directory. A mount point, and what is
/// above it, keeps its name in its namespace.
fn go_above<'m>(container: &Container, mount: &'m Mount) -> Result<&'m std::ffi::OsStr> {
    let at = &mount.mount_point;
    let failed = |e: Errno| {
        Error::internal(format!("cannot come to {} in the container", at.display()))
            .with_source(io::Error::from(e))
    };
    let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let below = above.strip_prefix("/").unwrap_or(above);
    let above = open_in(&container.root, below, DIRECTORY).map_err(failed)?;
    rustix::process::fchdir(&above).map_err(failed)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_by_its_names() {
        let names = |path: &str| parts(Path::new(path)).map(|p| p.len());
        assert_eq!(names("/a//b/./c/").unwrap(), 3);
        assert_eq!(names("/a/../b").unwrap(), 3);
        assert_eq!(names("/").unwrap(), 0);
        assert!(names("a/b").is_err());
    }

    #[test]
    fn what_is_taken_away_is_published_and_not_the_specifications() {
        let identity = |root: &str| Identity {
            device: "8:1".into(),
            root: root.into(),
        };
        let published = vec![
            (PathBuf::from("v1/pub/s1"), identity("/v1")),
            (PathBuf::from("v2/pub/s2"), identity("/v2")),
        ];
        let table = "1 0 0:5 / / rw - overlay o rw\n\
                     2 1 8:1 /v1 /my-data rw - ext4 a rw\n\
                     3 1 8:1 /v2 /spec rw - ext4 a rw\n\
                     4 1 8:1 /other /data rw - ext4 a rw\n\
                     5 1 8:1 / /host rw - ext4 a rw\n\
                     6 5 8:1 /v1 /host/m/v1/pub/s1 rw - ext4 a rw\n";
        let taking = Taking {
            target: crate::host::attach::Target {
                pid: 1,
                start_time: 1,
                rootfs: None,
            },
            mount_root: "/m".into(),
            spared: vec!["/spec/".into(), "/proc".into()],
        };
        let table = crate::host::mountinfo::parse(table.as_bytes());
        let taken = of_volumes(table, &published, &taking);
        let ids: Vec<_> = taken.iter().map(|m| m.id).collect();
        assert_eq!(ids, [2]);
    }
}
