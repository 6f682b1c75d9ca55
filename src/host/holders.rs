// SPDX-License-Identifier: Apache-2.0
//! Who still holds a volume: the processes whose mount namespace has a mount of
//! it, other than where it was staged and published.
//!
//! This is the proof that every member of a scope has exited: a container's
//! mount namespace lives as long as one of its processes.

use std::{collections::HashSet, io, path::Path};

use super::mountinfo::{self, Identity};

/// One process in a mount namespace that holds the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command name, for people.
    pub command: String,
    /// Where it sees the volume, for people.
    pub mount_point: String,
}

/// Looks through the mount namespaces of all processes.
///
/// `known` are the paths at which the volume is staged and published: a mount
/// there, in a namespace that follows ours, ends with ours. `passed_over` are
/// processes whose mount namespace does not count: the driver's own.
pub fn find(volume: &Identity, known: &[&Path], passed_over: &[u32]) -> io::Result<Option<Holder>> {
    let mut seen = HashSet::new();
    seen.insert(namespace("self")?);
    for pid in passed_over {
        if let Ok(ns) = namespace(&pid.to_string()) {
            seen.insert(ns);
        }
    }
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        // A process that ends while we look is no holder; one that may not be
        // looked at is an error, for then nothing is proven.
        let ns = match namespace(&pid.to_string()) {
            Ok(ns) => ns,
            Err(e) if gone(&e) => continue,
            Err(e) => return Err(e),
        };
        if seen.contains(&ns) {
            continue;
        }
        let mounts = match mountinfo::read(Path::new(&format!("/proc/{pid}/mountinfo"))) {
            Ok(mounts) => mounts,
            Err(e) if gone(&e) => continue,
            Err(e) => return Err(e),
        };
        // An exiting process may show an empty table while another one of the
        // same namespace lives on: only a table that was read counts as seen.
        if !mounts.is_empty() {
            seen.insert(ns);
        }
        let holds = mounts
            .iter()
            .find(|m| volume.contains(&m.identity) && !known.contains(&m.mount_point.as_path()));
        if let Some(mount) = holds {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Ok(Some(Holder {
                pid,
                command: command.trim_end().to_owned(),
                mount_point: mount.mount_point.display().to_string(),
            }));
        }
    }
    Ok(None)
}

fn namespace(pid: &str) -> io::Result<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt"))
}

fn gone(error: &io::Error) -> bool {
    // ENOENT and ESRCH: it ended. EINVAL: mountinfo of a process past exit_mm.
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} ({}) has it at {}",
            self.pid, self.command, self.mount_point
        )
    }
}
