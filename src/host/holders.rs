// SPDX-License-Identifier: Apache-2.0
//! Who still holds a volume: the processes whose mount namespace has a mount of
//! it, other than where it was staged and published.
//!
//! This is the proof that every member of a scope has exited: a container's
//! mount namespace lives as long as one of its processes.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use super::mountinfo::{self, Identity, Mount};

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

/// One question: who holds this volume?
#[derive(Debug, Clone)]
pub struct Query {
    /// What the volume's mounts show.
    pub volume: Identity,
    /// The paths at which it is staged and published: a mount there, in a
    /// namespace that follows ours, ends with ours.
    pub known: Vec<PathBuf>,
    /// Processes whose mount namespace does not count: the driver's own.
    pub passed_over: Vec<u32>,
    /// The containers of the scope.
    pub containers: Vec<String>,
}

/// Looks through the mount namespaces of all processes, once for all questions;
/// the answers are in their order.
///
/// A process with capabilities that this one lacks may not be looked at
/// (ptrace(2), PTRACE_MODE_READ). It counts as a holder if its control group is
/// named after one of the containers, as every runtime names them.
pub fn find(queries: &[Query]) -> io::Result<Vec<Option<Holder>>> {
    let mut questions = Questions::new(queries);
    let mut seen = HashSet::new();
    seen.insert(namespace("self")?);
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
                match control_groups(pid) {
                    Ok(groups) => questions.not_to_be_looked_at(pid, &groups),
                    Err(e) if gone(&e) => {}
                    Err(e) => return Err(e),
                }
                continue;
            }
            Err(e) => return Err(e),
        };
        questions.look(pid, &ns, &mounts);
        // An exiting process may show an empty table while another one of the
        // same namespace lives on: only a table that was read counts as seen.
        if !mounts.is_empty() {
            seen.insert(ns);
        }
    }
    Ok(questions.answers)
}

/// Questions by the device that they are about, so that a mount is compared with
/// those alone.
struct Questions<'q> {
    queries: &'q [Query],
    passed_over: Vec<HashSet<PathBuf>>,
    by_device: HashMap<&'q str, Vec<usize>>,
    answers: Vec<Option<Holder>>,
}

impl<'q> Questions<'q> {
    fn new(queries: &'q [Query]) -> Self {
        let mut by_device: HashMap<&str, Vec<usize>> = HashMap::new();
        for (n, query) in queries.iter().enumerate() {
            by_device.entry(&query.volume.device).or_default().push(n);
        }
        let spaces = |query: &Query| {
            let pids = query.passed_over.iter();
            pids.filter_map(|pid| namespace(&pid.to_string()).ok())
                .collect()
        };
        Self {
            passed_over: queries.iter().map(spaces).collect(),
            answers: vec![None; queries.len()],
            by_device,
            queries,
        }
    }

    fn look(&mut self, pid: u32, ns: &PathBuf, mounts: &[Mount]) {
        for mount in mounts {
            let about = self.by_device.get(mount.identity.device.as_str());
            for &n in about.into_iter().flatten() {
                let query = &self.queries[n];
                if self.answers[n].is_none()
                    && query.volume.contains(&mount.identity)
                    && !query.known.contains(&mount.mount_point)
                    && !self.passed_over[n].contains(ns)
                {
                    let how = format!("has it at {}", mount.mount_point.display());
                    self.answers[n] = Some(of(pid, how));
                }
            }
        }
    }

    fn not_to_be_looked_at(&mut self, pid: u32, groups: &str) {
        for (query, answer) in self.queries.iter().zip(&mut self.answers) {
            if answer.is_none() && names_one_of(groups, &query.containers) {
                let how = "is of the scope, and its mounts may not be looked at";
                *answer = Some(of(pid, how.into()));
            }
        }
    }
}

/// This process as a holder.
pub(super) fn of(pid: u32, how: String) -> Holder {
    Holder {
        pid,
        command: command(pid),
        how,
    }
}

/// The command's name. That of a program that ran itself again, as gVisor's gofer, is
/// `exe`: its file's name says more.
fn command(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim_end();
    if name == "exe"
        && let Ok(file) = std::fs::read_link(format!("/proc/{pid}/exe"))
        && let Some(file) = file.file_name()
    {
        return file.to_string_lossy().into_owned();
    }
    name.to_owned()
}

/// Whether the process is in a control group named after one of the containers.
pub(super) fn in_control_group(pid: u32, containers: &[String]) -> io::Result<bool> {
    Ok(names_one_of(&control_groups(pid)?, containers))
}

fn control_groups(pid: u32) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
}

/// An id may be short, as people choose them: it counts where it is a whole name, also
/// with what runtimes and systemd put around it (`runc-ID.scope`, `slice:runc:ID`).
fn names_one_of(groups: &str, containers: &[String]) -> bool {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut names = paths.flat_map(|path| path.split('/'));
    names.any(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let is_it = |id: &String| {
            let before = name.strip_suffix(id.as_str());
            before.is_some_and(|before| before.is_empty() || before.ends_with(['-', ':']))
        };
        containers.iter().any(is_it)
    })
}

fn namespace(pid: &str) -> io::Result<PathBuf> {
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
        assert!(!in_control_group(own, &["0123456789abcdef".into()]).unwrap());
        assert!(!in_control_group(own, &[]).unwrap());
        for (groups, found) in [
            ("0::/c1", true),
            ("9:cpu:/x\n8:name=systemd:/kubepods/c1/y", true),
            ("0::/machine.slice/libpod-c1.scope/container", true),
            ("0::/system.slice:cri-containerd:c1", true),
            ("0::/c12", false),
            ("0::/xc1", false),
            ("9:c1:/", false),
            ("0::/c1.slice", false),
        ] {
            assert_eq!(names_one_of(groups, &["c1".into()]), found, "{groups}");
        }
    }

    #[test]
    fn the_root_of_this_namespace_is_held_by_nobody_elsewhere_at_an_unknown_path() {
        let nothing = Query {
            volume: Identity {
                device: "0:0".into(),
                root: "/no/such/volume".into(),
            },
            known: Vec::new(),
            passed_over: Vec::new(),
            containers: Vec::new(),
        };
        assert_eq!(find(&[nothing.clone(), nothing]).unwrap(), [None, None]);
    }

    #[test]
    fn one_look_answers_each_question_for_itself() {
        let query = |root: &str, known: &str| Query {
            volume: Identity {
                device: "8:1".into(),
                root: root.into(),
            },
            known: vec![known.into()],
            passed_over: Vec::new(),
            containers: vec!["c1".into()],
        };
        let queries = [query("/a", "/x"), query("/b", "/m/b"), query("/c", "/x")];
        let mut questions = Questions::new(&queries);
        let table = b"36 35 8:1 /a/sub /m/a rw - ext4 /dev/x rw\n\
                      37 35 8:1 /b /m/b rw - ext4 /dev/x rw\n";
        questions.look(1, &"mnt:[1]".into(), &mountinfo::parse(table));
        let how = |n: usize| questions.answers[n].as_ref().map(|h| h.how.clone());
        assert_eq!(how(0).as_deref(), Some("has it at /m/a"));
        assert_eq!((how(1), how(2)), (None, None));
        questions.not_to_be_looked_at(2, "9:cpu:/kubepods/c1");
        assert!(questions.answers.iter().all(Option::is_some));
    }
}
