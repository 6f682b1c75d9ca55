// SPDX-License-Identifier: Apache-2.0
//! A host with nothing on it but `serve`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than this nothing may take.
const AT_LAST: Duration = Duration::from_secs(60);

/// Waits until it finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + AT_LAST;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the process is there, also if nobody has waited for it.
pub(crate) fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

pub(crate) struct Host(TempDir);

impl Host {
    pub(crate) fn new() -> Self {
        let host = Self(tempfile::Builder::new().prefix("av").tempdir().unwrap());
        host.configure(&format!(
            "[local_driver]\nroot = \"{}\"\n",
            host.path("volumes").display()
        ));
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the configuration, with this at its end.
    pub(crate) fn configure(&self, more: &str) {
        let dir = self.0.path().display();
        let text = format!(
            "[node]\nname = \"n\"\nstate_dir = \"{dir}/state\"\nrun_dir = \"{dir}/run\"\nmount_root = \"{dir}/m\"\n\
             [runtime]\nnri_socket = \"{dir}/nri.sock\"\ncri_socket = \"{dir}/cri.sock\"\n{more}"
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A verb that succeeds; what it prints.
    pub(crate) fn av(&self, line: &str) -> String {
        let done = Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
            .env("ACTOR_VOLUMES_SOCKET", self.path("run/actor-volumes.sock"))
            .args(line.split(' '))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{line}: {error}\n{}", self.log());
        String::from_utf8(done.stdout).unwrap()
    }
}

pub(crate) struct Serve<'a> {
    host: &'a Host,
    child: Child,
}

impl<'a> Serve<'a> {
    pub(crate) fn start(host: &'a Host) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(host.path("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
            .args(["serve", "--config"])
            .arg(host.path("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { host, child }
    }

    /// The parts that run now, by their subcommand.
    pub(crate) fn parts(&self) -> BTreeMap<&'static str, u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let named = children.split_whitespace().filter_map(|child| {
            let line = fs::read(format!("/proc/{child}/cmdline")).ok()?;
            let word = line.split(|b| *b == 0).nth(1)?;
            let known = super::PARTS.into_iter().find(|p| p.as_bytes() == word)?;
            Some((known, child.parse().ok()?))
        });
        named.collect()
    }

    /// Waits until each of them answers.
    pub(crate) fn until_up(&self) -> BTreeMap<&'static str, u32> {
        let up = |socket: &str| UnixStream::connect(self.host.path(socket)).is_ok();
        until("all parts are up", || {
            let sockets = [
                "run/actor-volumes.sock",
                "run/agent.sock",
                "run/helper.sock",
                "run/local-driver.sock",
            ];
            let parts = self.parts();
            (sockets.into_iter().all(up) && parts.len() == super::PARTS.len()).then_some(parts)
        })
    }

    /// Sends the signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.status()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn status(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Serve<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
