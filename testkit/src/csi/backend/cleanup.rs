// SPDX-License-Identifier: Apache-2.0
//! Leaves nothing behind: mounts, loop devices, processes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use actor_volumes::host::mount;
use rustix::{mount::UnmountFlags, process::Signal};

use super::{Backend, fuse, loop_device};

/// Takes away, when it is dropped, whatever mounts, loop devices and processes
/// the drivers over this backend have made; also after a test that failed.
#[derive(Debug)]
pub struct Cleanup(Backend);

impl Cleanup {
    /// Of this backend, when it is dropped.
    pub fn new(backend: &Backend) -> Self {
        Self(backend.clone())
    }

    /// Of this backend, now.
    pub fn now(&self) -> io::Result<()> {
        let Some(root) = self.0.root() else {
            return Ok(());
        };
        let volumes = root.join("volumes");
        match &self.0 {
            Backend::Memory => {}
            Backend::Bind { .. } if volumes.exists() => {
                let volumes = volumes.canonicalize()?;
                for binding in mount::bindings(&volumes)? {
                    detach(&binding.target)?;
                }
            }
            Backend::Bind { .. } => {}
            Backend::Loop { .. } => {
                for image in entries(&volumes)? {
                    let Some(device) = loop_device::find(&image)? else {
                        continue;
                    };
                    for target in shown(|source, root| source == device || root == device)? {
                        detach(&target)?;
                    }
                    loop_device::release(&image)?;
                }
            }
            Backend::Fuse { .. } => {
                for process in fuse::processes(root, "")? {
                    process.signal(Signal::KILL)?;
                }
                for volume in entries(&volumes)? {
                    for target in shown(|source, _| source == volume)? {
                        detach(&target)?;
                    }
                }
                fuse::forget_dead(root)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Err(e) = self.now() {
            // A panic here would hide the failure of the test itself.
            eprintln!("cannot clean up after {:?}: {e}", self.0);
        }
    }
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other?.map(|e| e.map(|e| e.path())).collect(),
    }
}

/// Lazily: whoever still looks into it shall not keep it.
fn detach(target: &Path) -> io::Result<()> {
    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
    match rustix::mount::unmount(target, flags) {
        // It went together with another one.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The targets of all mounts of such a source, or of such a file of `/dev`; the
/// last ones first.
fn shown(wanted: impl Fn(&Path, &Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<_> = left.split(' ').collect();
        let source = right.split(' ').nth(1).unwrap_or_default();
        let (root, target) = (left[3], left[4]);
        let device = Path::new("/dev").join(root.trim_start_matches('/'));
        if wanted(Path::new(source), &device) {
            found.push(target.into());
        }
    }
    found.reverse();
    Ok(found)
}
