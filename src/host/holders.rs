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
    /// How it holds the volume, for people.
    pub how: String,
}

/// Looks through the mount namespaces of all processes.
///
/// `known` are the paths at which the volume is staged and published: a mount
/// there, in a namespace that follows ours, ends with ours. `passed_over` are
/// processes whose mount namespace does not count: the driver's own.
///
/// A process with capabilities that this one lacks may not be looked at
/// (ptrace(2), PTRACE_MODE_READ). It counts as a holder if its control group is
/// named after one of `containers`, as every runtime names them.
pub fn find(
    volume: &Identity,
    known: &[&Path],
    passed_over: &[u32],
    containers: &[String],
) -> io::Result<Option<Holder>> {
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
        let looked = namespace(&pid.to_string()).and_then(|ns| {
            if seen.contains(&ns) {
                return Ok(None);
            }
            let mounts = mountinfo::read(Path::new(&format!("/proc/{pid}/mountinfo")))?;
            Ok(Some((ns, mounts)))
        });
        let (ns, mounts) = match looked {
            Ok(Some(looked)) => looked,
            Ok(None) => continue,
            // A process that ends while we look is no holder.
            Err(e) if gone(&e) => continue,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                match in_control_group(pid, containers) {
                    Ok(true) => {
                        let how = "is of the scope, and its mounts may not be looked at";
                        return Ok(Some(of(pid, how.into())));
                    }
                    Ok(false) => continue,
                    Err(e) if gone(&e) => continue,
                    Err(e) => return Err(e),
                }
            }
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
            let how = format!("has it at {}", mount.mount_point.display());
            return Ok(Some(of(pid, how)));
        }
    }
    Ok(None)
}

/// This process as a holder.
pub(super) fn of(pid: u32, how: String) -> Holder {
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Holder {
        pid,
        command: command.trim_end().to_owned(),
        how,
    }
}

/// Whether the process is in a control group named after one of the containers.
pub(super) fn in_control_group(pid: u32, containers: &[String]) -> io::Result<bool> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(containers.iter().any(|id| groups.contains(id.as_str())))
}

fn namespace(pid: &str) -> io::Result<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt"))
}

/// Whether the error says that the process has ended.
pub(super) fn gone(error: &io::Error) -> bool {
    // ENOENT and ESRCH: it ended. EINVAL: mountinfo of a process past exit_mm.
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({}) {}", self.pid, self.command, self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_the_name_of_its_control_group() {
        let own = std::process::id();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let some_name: String = groups.lines().next().unwrap().into();
        assert!(in_control_group(own, &[some_name]).unwrap());
        assert!(!in_control_group(own, &["0123456789abcdef".into()]).unwrap());
        assert!(!in_control_group(own, &[]).unwrap());
    }

    #[test]
    fn the_root_of_this_namespace_is_held_by_nobody_elsewhere_at_an_unknown_path() {
        let nothing = Identity {
            device: "0:0".into(),
            root: "/no/such/volume".into(),
        };
        assert_eq!(find(&nothing, &[], &[], &[]).unwrap(), None);
    }
}
