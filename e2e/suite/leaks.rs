// SPDX-License-Identifier: Apache-2.0
//! What a case must not leave behind: mounts, processes, loop devices,
//! directories. Also ends by force what a failed case left.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

/// A process, as far as telling it apart needs.
struct Process {
    pid: i32,
    command: String,
    cgroups: String,
    zombie: bool,
}

impl Process {
    fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // A process may end between the listing and the reads.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
        found.push(Process {
            pid,
            command,
            cgroups: String::from_utf8_lossy(&read("cgroup")).into_owned(),
            zombie: matches!(state, Some('Z' | 'X') | None),
        });
    }
    found
}

/// Processes that belong to a node: those that name its directory, and those
/// in a cgroup of its pods.
fn processes_of(dir: &Path, cgroup_parent: &str) -> Vec<Process> {
    let dir = format!("{}/", dir.display());
    let cgroup = format!("{cgroup_parent}/");
    let own = std::process::id().cast_signed();
    let belongs = |p: &Process| {
        p.pid != own && !p.zombie && (p.command.contains(&dir) || p.cgroups.contains(&cgroup))
    };
    processes().into_iter().filter(belongs).collect()
}

/// Mount points below a directory, the deepest last.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    let below = |p: &PathBuf| p.starts_with(dir) && p != dir;
    text.lines().filter_map(point).filter(below).collect()
}

/// Files that loop devices are made of, the suite's own and foreign ones.
pub(crate) fn loop_devices() -> Vec<String> {
    let Ok(blocks) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let file =
        |block: fs::DirEntry| fs::read_to_string(block.path().join("loop/backing_file")).ok();
    let mut files: Vec<String> = blocks.flatten().filter_map(file).collect();
    files.sort();
    files
}

/// The names in a directory; none when it is not there.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |e: fs::DirEntry| e.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.flatten().map(name).collect();
    names.sort();
    names
}

/// Directories of cgroups that are left below a parent.
fn cgroups_below(parent: &str) -> Vec<PathBuf> {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    let parent = parent.trim_start_matches('/');
    let mut found = Vec::new();
    for root in hierarchies.flatten().map(|h| h.path().join(parent)) {
        let Ok(children) = fs::read_dir(&root) else {
            continue;
        };
        let directories = children.flatten().map(|c| c.path()).filter(|p| p.is_dir());
        found.extend(directories);
    }
    found
}

/// Everything that is left of a node whose pods were removed and whose daemons
/// were stopped; empty when nothing is.
pub(crate) fn left_behind(dir: &Path, cgroup_parent: &str) -> Vec<String> {
    let mut left = Vec::new();
    for mount in mounts_below(dir) {
        left.push(format!("a mount: {}", mount.display()));
    }
    // A shim ends a moment after its sandbox.
    let until = Instant::now() + Duration::from_secs(5);
    while !processes_of(dir, cgroup_parent).is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
    for process in processes_of(dir, cgroup_parent) {
        left.push(format!("a process: {} {}", process.pid, process.command));
    }
    for cgroup in cgroups_below(cgroup_parent) {
        left.push(format!("a cgroup: {}", cgroup.display()));
    }
    left
}

/// Ends the shim of a sandbox: containerd 2 leaves it behind where the sandbox's
/// process was killed from outside.
pub(crate) fn end_shim(dir: &Path, sandbox: &str) {
    let own = format!("-id {sandbox} ");
    for process in processes_of(dir, sandbox) {
        if process.command.contains("containerd-shim") && process.command.contains(&own) {
            process.kill();
        }
    }
}

/// Ends what a containerd that was killed has forgotten: shims, cgroups and root file
/// systems of sandboxes that it was making, and lists no more. Says how much it was.
/// All pods are removed by now.
pub(crate) fn end_forgotten(dir: &Path, cgroup_parent: &str) -> String {
    let is_shim = |p: &Process| p.command.contains("containerd-shim");
    let (shims, others): (Vec<_>, Vec<_>) = processes_of(dir, cgroup_parent)
        .into_iter()
        .partition(is_shim);
    let in_pods = format!("{cgroup_parent}/");
    let inner = others.iter().filter(|p| p.cgroups.contains(&in_pods));
    let inner: Vec<_> = inner.collect();
    for process in shims.iter().chain(inner.iter().copied()) {
        process.kill();
    }
    let roots = mounts_below(&dir.join("state"));
    for mount in roots.iter().rev() {
        let _ = unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    let until = Instant::now() + Duration::from_secs(5);
    let cgroups = cgroups_below(cgroup_parent).len();
    while !cgroups_below(cgroup_parent).is_empty() && Instant::now() < until {
        for cgroup in cgroups_below(cgroup_parent) {
            let _ = fs::remove_dir(cgroup);
        }
        thread::sleep(Duration::from_millis(50));
    }
    format!(
        "{} shims, {} processes, {} mounts, {cgroups} cgroups",
        shims.len(),
        inner.len(),
        roots.len()
    )
}

/// Ends all that is left of a node, by force. A case that failed must not
/// disturb the next one.
pub(crate) fn sweep(dir: &Path, cgroup_parent: &str) {
    for process in processes_of(dir, cgroup_parent) {
        process.kill();
    }
    for mount in mounts_below(dir).into_iter().rev() {
        let _ = unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    for cgroup in cgroups_below(cgroup_parent) {
        let _ = fs::remove_dir(cgroup);
    }
    // Never through a mount that is still there.
    if mounts_below(dir).is_empty() {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Removes the cgroups that the runtimes made for parents of pods.
pub(crate) fn remove_cgroup_parent(parent: &str) {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
        return;
    };
    let parent = parent.trim_start_matches('/');
    for hierarchy in hierarchies.flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(parent));
    }
}

/// What the whole suite left: processes other than itself and its ancestors
/// in its own process namespace, mounts below its directory, loop devices
/// that were not there before.
pub(crate) fn left_by_suite(base: &Path, loops_before: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    let own = std::process::id().cast_signed();
    for process in processes() {
        // The first process of the namespace holds it open.
        let expected = process.pid == 1 || process.pid == own || process.zombie;
        if !expected {
            left.push(format!("a process: {} {}", process.pid, process.command));
        }
    }
    for mount in mounts_below(base) {
        left.push(format!("a mount: {}", mount.display()));
    }
    for file in loop_devices() {
        if !loops_before.contains(&file) {
            left.push(format!("a loop device: {}", file.trim()));
        }
    }
    for name in entries(base) {
        left.push(format!("a directory: {}/{name}", base.display()));
    }
    left
}
