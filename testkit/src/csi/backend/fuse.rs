// SPDX-License-Identifier: Apache-2.0
//! The processes that serve FUSE file systems, one for each mount of a volume.
//!
//! They outlive the driver: `<root>/fuse/<volume>@<pid>` has the path that each
//! serves.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Backend, mounted, unmount};
use crate::csi::FuseOrder;

/// No server takes longer to mount, unless it never does.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a volume is served.
pub(super) struct Server<'a> {
    pub(super) root: &'a Path,
    pub(super) program: &'a Path,
    pub(super) name: &'a str,
}

impl Server<'_> {
    /// Serves `data` at `at`; a dead mount makes room for a new one.
    pub(super) fn mount(
        &self,
        data: &Path,
        at: &Path,
        midway: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        if mounted(at)? {
            let alive = processes(self.root, self.name)?;
            if alive.iter().any(|p| p.serves == at && p.lives()) {
                return Ok(());
            }
            unmount(at)?;
        }
        let mut child = Command::new(self.program)
            .arg("serve-fuse")
            .args([data, at])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| {
                let program = self.program.display();
                io::Error::new(e.kind(), format!("cannot run {program}, is it built? {e}"))
            })?;
        let file = directory(self.root).join(format!("{}@{}", flat(self.name), child.id()));
        fs::create_dir_all(directory(self.root))?;
        fs::write(&file, at.as_os_str().as_encoded_bytes())?;
        let until = Instant::now() + PATIENCE;
        while !mounted(at)? {
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                child.kill()?;
                child.wait()?;
                fs::remove_file(&file)?;
                let text = format!("the FUSE server did not mount: {ended:?}");
                return Err(io::Error::other(text));
            }
            thread::sleep(Duration::from_millis(3));
        }
        // Its end is waited for, so that nothing is left of it then.
        thread::spawn(move || child.wait());
        midway()
    }
}

fn directory(root: &Path) -> PathBuf {
    root.join("fuse")
}

fn flat(name: &str) -> String {
    name.replace('/', "_")
}

/// A server that was started.
pub(super) struct Process {
    pid: i32,
    serves: PathBuf,
    file: PathBuf,
}

impl Process {
    /// Whether this number is still that server's.
    pub(super) fn lives(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        words.any(|w| w == b"serve-fuse")
    }

    /// Whether it has let go of the file system: at its end that comes after
    /// its command line is gone.
    fn has_ended(&self) -> bool {
        let own = PathBuf::from(format!("/proc/{}", self.pid));
        let Some(state) = state(&own) else {
            return true;
        };
        let threads = fs::read_dir(own.join("task")).map_or(0, Iterator::count);
        matches!(state, 'Z' | 'X') && threads <= 1
    }

    /// Whether a stop has reached every thread of it.
    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        let mut threads = threads.into_iter().flatten().flatten();
        threads.all(|thread| state(&thread.path()).is_none_or(|s| matches!(s, 'T' | 'Z' | 'X')))
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match Pid::from_raw(self.pid).filter(|_| self.lives()) {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }
}

/// The state of a process or thread, by its directory in /proc.
fn state(of: &Path) -> Option<char> {
    let stat = fs::read_to_string(of.join("stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, s)| s.chars().next())
}

/// The servers of a volume, or of all if it has no name.
pub(super) fn processes(root: &Path, name: &str) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    let files = match fs::read_dir(directory(root)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for file in files {
        let file = file?.path();
        let text = file.file_name().map(|f| f.to_string_lossy().into_owned());
        let text = text.unwrap_or_default();
        let Some((volume, pid)) = text.rsplit_once('@') else {
            continue;
        };
        let Some(pid) = pid
            .parse()
            .ok()
            .filter(|_| name.is_empty() || volume == flat(name))
        else {
            continue;
        };
        let serves = fs::read_to_string(&file)?.into();
        found.push(Process { pid, serves, file });
    }
    Ok(found)
}

/// Forgets the servers that have ended.
pub(super) fn forget_dead(root: &Path) -> io::Result<()> {
    for process in processes(root, "")? {
        if !process.lives() {
            super::ignore(fs::remove_file(process.file), io::ErrorKind::NotFound)?;
        }
    }
    Ok(())
}

/// Kills, freezes or thaws the servers of a volume.
pub(in crate::csi) fn order(backend: &Backend, name: &str, order: FuseOrder) -> io::Result<()> {
    let Backend::Fuse { root, .. } = backend else {
        return Err(io::Error::other("only the FUSE backend has servers"));
    };
    let signal = match order {
        FuseOrder::Kill => Signal::KILL,
        FuseOrder::Freeze => Signal::STOP,
        FuseOrder::Thaw => Signal::CONT,
    };
    for process in processes(root, name)? {
        process.signal(signal)?;
        let until = Instant::now() + PATIENCE;
        let done = || match order {
            FuseOrder::Kill => process.has_ended(),
            // Until all its threads stand still, it may answer once more.
            FuseOrder::Freeze => process.stands_still(),
            FuseOrder::Thaw => true,
        };
        while !done() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}
