// SPDX-License-Identifier: Apache-2.0
//! The files of volumes, and the mounts that show them.
//!
//! Everything here may be done again: what is done already is left as it is.

mod cleanup;
mod fuse;
mod loop_device;
mod tool;

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use actor_volumes::{
    host::{mount, tree},
    proto::csi::{self as wire, volume_usage::Unit},
};
use rustix::mount::MountFlags;

pub use cleanup::Cleanup;
pub(super) use fuse::order as fuse_order;

use super::Backend;
use tool::tool;

/// How a volume is shown.
pub(super) enum Access {
    /// As a device.
    Block,
    /// As a file system.
    Mount {
        /// Empty: the backend's own.
        fs_type: String,
        /// For mount(8).
        flags: Vec<String>,
    },
}

impl Default for Access {
    fn default() -> Self {
        Self::Mount {
            fs_type: String::new(),
            flags: Vec::new(),
        }
    }
}

impl Backend {
    pub(super) fn has_block(&self) -> bool {
        matches!(self, Self::Memory | Self::Loop { .. })
    }

    /// Where the files of a volume are, if there are any.
    fn data(&self, name: &str) -> Option<PathBuf> {
        let name = name.replace('/', "_");
        self.root().map(|root| root.join("volumes").join(name))
    }
}

/// What is done to one volume.
pub(super) struct Effect<'a> {
    pub(super) backend: &'a Backend,
    pub(super) name: &'a str,
    /// Called with half of the work done.
    pub(super) midway: Box<dyn Fn() -> io::Result<()> + 'a>,
}

impl Effect<'_> {
    /// The files of a new volume, with those of another one if it is a clone.
    pub(super) fn make(&self, size: u64, from: Option<&str>) -> io::Result<()> {
        let Some(data) = self.backend.data(self.name) else {
            return (self.midway)();
        };
        let from = from.and_then(|name| self.backend.data(name));
        if let Backend::Loop { .. } = self.backend {
            loop_device::grow(&data, size)?;
            (self.midway)()?;
            return from.map_or(Ok(()), |from| {
                tool(
                    "cp",
                    &[
                        OsStr::new("--sparse=always"),
                        from.as_os_str(),
                        data.as_os_str(),
                    ],
                )?;
                loop_device::grow(&data, size)
            });
        }
        fs::create_dir_all(&data)?;
        (self.midway)()?;
        from.map_or(Ok(()), |from| {
            tool(
                "cp",
                &[
                    OsStr::new("-a"),
                    from.join(".").as_os_str(),
                    data.as_os_str(),
                ],
            )
            .map(drop)
        })
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        (self.midway)()?;
        let Some(data) = self.backend.data(self.name) else {
            return Ok(());
        };
        if let Backend::Loop { .. } = self.backend {
            loop_device::release(&data)?;
            return ignore(fs::remove_file(data), io::ErrorKind::NotFound);
        }
        let Some((parent, name)) = data.parent().zip(data.file_name()) else {
            return Ok(());
        };
        tree::remove_tree(File::open(parent)?, name)
    }

    pub(super) fn stage(&self, staging: &Path, access: &Access) -> io::Result<()> {
        match self.backend.data(self.name) {
            Some(data) => self.show(&data, staging, access),
            None => (self.midway)(),
        }
    }

    /// Shows the files themselves, not what is staged.
    fn show(&self, data: &Path, at: &Path, access: &Access) -> io::Result<()> {
        match (self.backend, access) {
            (Backend::Loop { .. }, Access::Block) => {
                loop_device::of(data)?;
                (self.midway)()
            }
            (Backend::Loop { .. }, Access::Mount { fs_type, flags }) => {
                loop_device::mount(data, at, (fs_type, flags), &self.midway)
            }
            (Backend::Fuse { root, server }, _) => {
                let server = fuse::Server {
                    root,
                    program: server,
                    name: self.name,
                };
                server.mount(data, at, &self.midway)
            }
            _ => {
                (self.midway)()?;
                if !mounted(at)? {
                    mount::bind(data, at, false)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn unstage(&self, staging: &Path) -> io::Result<()> {
        let Some(data) = self.backend.data(self.name) else {
            return (self.midway)();
        };
        unmount(staging)?;
        (self.midway)()?;
        self.release(&data)
    }

    /// What is left of a volume once it is shown nowhere.
    fn release(&self, data: &Path) -> io::Result<()> {
        match self.backend {
            Backend::Loop { .. } => loop_device::release(data),
            Backend::Fuse { root, .. } => fuse::forget_dead(root),
            _ => Ok(()),
        }
    }

    pub(super) fn publish(
        &self,
        staging: Option<&Path>,
        target: &Path,
        access: &Access,
        read_only: bool,
    ) -> io::Result<()> {
        let data = self.backend.data(self.name);
        if let Access::Block = access {
            OpenOptions::new().append(true).create(true).open(target)?;
            (self.midway)()?;
            return data.map_or(Ok(()), |data| loop_device::show(&data, target, read_only));
        }
        ignore(fs::create_dir(target), io::ErrorKind::AlreadyExists)?;
        let Some(data) = data else {
            return (self.midway)();
        };
        if mounted(target)? {
            return Ok(());
        }
        let Some(staging) = staging else {
            self.show(&data, target, access)?;
            if read_only {
                let flags = MountFlags::BIND | MountFlags::RDONLY;
                rustix::mount::mount_remount(target, flags, c"")?;
            }
            return Ok(());
        };
        (self.midway)()?;
        // Blindly, as drivers do: it may be that nothing is staged there.
        mount::bind(staging, target, read_only)
    }

    pub(super) fn unpublish(&self, target: &Path, staged: bool) -> io::Result<()> {
        if let Some(data) = self.backend.data(self.name) {
            unmount(target)?;
            if !staged {
                self.release(&data)?;
            }
        }
        (self.midway)()?;
        match fs::symlink_metadata(target) {
            Ok(found) if found.is_dir() => fs::remove_dir(target),
            Ok(_) => fs::remove_file(target),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Makes more room for the files.
    pub(super) fn grow(&self, size: u64) -> io::Result<()> {
        match (self.backend, self.backend.data(self.name)) {
            (Backend::Loop { .. }, Some(data)) => loop_device::grow(&data, size),
            _ => Ok(()),
        }
    }

    /// Makes the room known where the volume is shown.
    pub(super) fn grow_seen(&self, at: &Path) -> io::Result<()> {
        match (self.backend, self.backend.data(self.name)) {
            (Backend::Loop { .. }, Some(data)) => loop_device::grow_seen(&data, at, &self.midway),
            _ => (self.midway)(),
        }
    }
}

/// Gives what is shown at `path` to the group, as `gid=` of mount(8) would.
pub(super) fn give_to_group(path: &Path, group: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, None, Some(group))?;
    let mode = fs::metadata(path)?.permissions().mode() | 0o2070;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// What is used of what is shown at `path`.
pub(super) fn usage(path: &Path) -> io::Result<Vec<wire::VolumeUsage>> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if fs::symlink_metadata(path)?.file_type().is_block_device() {
        let total = loop_device::size(path)?;
        return Ok(vec![wire::VolumeUsage {
            total: count(total),
            unit: Unit::Bytes.into(),
            ..Default::default()
        }]);
    }
    let found = rustix::fs::statvfs(path)?;
    let (total, free, available) = (found.f_blocks, found.f_bfree, found.f_bavail);
    Ok(vec![
        wire::VolumeUsage {
            available: count(available * found.f_frsize),
            total: count(total * found.f_frsize),
            used: count((total - free) * found.f_frsize),
            unit: Unit::Bytes.into(),
        },
        wire::VolumeUsage {
            available: count(found.f_ffree),
            total: count(found.f_files),
            used: count(found.f_files - found.f_ffree),
            unit: Unit::Inodes.into(),
        },
    ])
}

/// Whether something is mounted at the path, alive or not.
fn mounted(path: &Path) -> io::Result<bool> {
    match mount::is_mount_point(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        // Only a mount that has lost its server answers so.
        Err(e) if matches!(e.raw_os_error(), Some(107 | 116 | 5)) => Ok(true),
        other => other,
    }
}

/// Takes away everything that is mounted at the path.
fn unmount(path: &Path) -> io::Result<()> {
    while mounted(path)? {
        mount::unmount(path)?;
    }
    Ok(())
}

fn ignore(result: io::Result<()>, kind: io::ErrorKind) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == kind => Ok(()),
        other => other,
    }
}
