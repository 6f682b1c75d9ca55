// SPDX-License-Identifier: Apache-2.0
//! Processes that the suite starts, and waiting for what they do.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something; fails the case after `within`.
pub(crate) fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Waits until `look` is true; fails the case after `within`.
pub(crate) fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    until(what, within, || look().then_some(()));
}

/// Looks again and again for `span`: `look` must hold all the time.
pub(crate) fn while_true(what: &str, span: Duration, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(look(), "no longer so: {what}");
        thread::sleep(POLL);
    }
}

/// A process in a group of its own, with its output in a file.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) name: &'static str,
}

impl Daemon {
    /// Starts it; its output is added to the log.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: &Path) -> Self {
        let output = append(log).expect("the log lies in the case's own directory");
        let errors = output.try_clone().expect("a file handle can be copied");
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Self { child, name }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it with SIGKILL, as a crash would, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        // Only fails where the child was waited for before.
        let _ = self.child.wait();
    }

    /// The same, of the process alone and not of those that it has started.
    pub(crate) fn kill_alone(&mut self) {
        // Only fails where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end with SIGTERM; none when it does not within the time.
    pub(crate) fn terminate(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let end = Instant::now() + within;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(POLL);
        }
        self.kill();
        None
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // Once it was waited for, its number may be another process's.
        let group = Pid::from_raw(self.child.id().cast_signed()).filter(|_| self.is_running());
        if let Some(group) = group {
            // It may end by itself between the look and the signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
