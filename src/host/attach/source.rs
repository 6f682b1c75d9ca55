// SPDX-License-Identifier: Apache-2.0
//! A volume as it is published on this host, and a copy of its mount that is seen
//! nowhere yet.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, StatxAttributes},
    io::Errno,
    mount::OpenTreeFlags,
};

use super::{
    Wanted,
    container::{Container, unsupported},
};
use crate::{
    error::{Error, Result},
    host::{
        idmap::{self, Lacking},
        mount::{self, stat_mount},
        mountinfo::{self, Identity, Mount},
    },
};

/// A copy of a volume's mount, with all that is mounted in it.
pub(super) struct Source<'w> {
    pub(super) wanted: &'w Wanted,
    pub(super) identity: Identity,
    pub(super) tree: OwnedFd,
}

impl<'w> Source<'w> {
    /// Copies the mount, which must show what was published, with all that holds for it
    /// in the container.
    pub(super) fn copy(wanted: &'w Wanted, container: &Container) -> Result<Self> {
        let (from, identity) = open(wanted)?;
        let failed = |call: &str, since: &str, e: io::Error| {
            let shown = wanted.source.display();
            match e.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOSYS) => Error::unimplemented(format!(
                    "this kernel cannot mount a volume into a container: {call} is missing (Linux {since} has it)"
                )),
                Some(Errno::PERM) => Error::denied(format!(
                    "cannot copy the mount {shown}: {call} needs CAP_SYS_ADMIN on the host; a rootless runtime cannot be served"
                )),
                _ => {
                    Error::internal(format!("cannot copy the mount {shown}: {call}")).with_source(e)
                }
            }
        };
        let tree = rustix::mount::open_tree(
            from.as_fd(),
            "",
            OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE,
        )
        .map_err(|e| failed("open_tree", "5.2", e.into()))?;
        let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if wanted.read_only {
            set |= libc::MOUNT_ATTR_RDONLY;
        }
        if wanted.no_exec {
            set |= libc::MOUNT_ATTR_NOEXEC;
        }
        mount::set_attributes(tree.as_fd(), set, true, None)
            .map_err(|e| failed("mount_setattr", "5.12", e))?;
        if let Some((users, _)) = &container.users {
            idmap::map(tree.as_fd(), users.as_fd()).map_err(|e| unmapped(wanted, e))?;
        }
        Ok(Self {
            wanted,
            identity,
            tree,
        })
    }
}

/// All that is mounted below the mount root: each with its path from there.
pub(super) fn published(mount_root: &Path) -> Result<Vec<(PathBuf, Identity)>> {
    let table = own_table()?;
    let of_root = |m: Mount| {
        let below = m.mount_point.strip_prefix(mount_root).ok()?.to_owned();
        (!below.as_os_str().is_empty()).then_some((below, m.identity))
    };
    Ok(table.into_iter().filter_map(of_root).collect())
}

fn own_table() -> Result<Vec<Mount>> {
    mountinfo::own().map_err(|e| Error::internal("cannot read /proc/self/mountinfo").with_source(e))
}

fn open(wanted: &Wanted) -> Result<(OwnedFd, Identity)> {
    let shown = wanted.source.display();
    let from = rustix::fs::open(
        &wanted.source,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| {
        Error::unavailable(format!(
            "cannot open the published volume {shown}: is this process in the mount namespace of the node agent?"
        ))
        .with_source(io::Error::from(e))
    })?;
    let found = stat_mount(&from, Path::new("")).map_err(unsupported)?;
    let table = own_table()?;
    let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let identity = table
        .into_iter()
        .find(|m| is_root && m.id == found.stx_mnt_id)
        .map(|m| m.identity)
        .filter(|identity| identity.device == wanted.device);
    let identity = identity.ok_or_else(|| {
        Error::unavailable(format!(
            "{shown} does not show the volume that was published there (device {}): does the mount namespace of the OCI runtime get the mounts of the node's?",
            wanted.device
        ))
    })?;
    Ok((from, identity))
}

fn unmapped(wanted: &Wanted, e: io::Error) -> Error {
    let why = match e.raw_os_error().and_then(idmap::lacking) {
        Some(Lacking::Kernel) => "this kernel has no such mounts (Linux 5.12 has them)",
        Some(Lacking::FileSystem) => {
            "its file system, or one mounted in it, has no such mounts: use another driver, or no user namespace"
        }
        Some(Lacking::Privilege) => {
            "this process may not make such mounts, or the volume is one already"
        }
        None => "the kernel refuses it",
    };
    Error::precondition(format!(
        "cannot show {} in a container with a user namespace: its owners cannot be mapped, {why}",
        wanted.source.display()
    ))
    .with_source(e)
}
