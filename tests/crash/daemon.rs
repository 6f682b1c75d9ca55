// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve` as a process of its own.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use actor_volumes::host::crash::CrashPoint;

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";

/// The daemon, started again whenever it has died.
pub(crate) struct Daemon {
    dir: PathBuf,
    child: Child,
    pub(crate) exits: Vec<ExitStatus>,
    /// Its parts die alone, and it starts them again.
    alone: bool,
    /// After its first death it dies again at its so many-th point.
    again: Option<usize>,
}

impl Daemon {
    /// Starts it; it can be armed once.
    pub(crate) fn start(dir: &Path, again: Option<usize>, alone: bool) -> Self {
        std::fs::write(dir.join("config.toml"), config(dir)).unwrap();
        Self {
            child: spawn(dir, true, alone),
            alone,
            dir: dir.into(),
            exits: Vec::new(),
            again,
        }
    }

    /// From now on it aborts when it comes to this point.
    pub(crate) fn arm(&self, point: CrashPoint) {
        std::fs::write(self.dir.join("crash-at"), point.name()).unwrap();
    }

    /// How often it has died, or a part of it where that dies alone.
    pub(crate) fn deaths(&self) -> usize {
        match self.alone {
            // It takes its order with it.
            true => usize::from(!self.dir.join("crash-at").exists()),
            false => self.exits.len(),
        }
    }

    /// The points that it came to, in order.
    pub(crate) fn points(&self) -> Vec<CrashPoint> {
        let log = std::fs::read_to_string(self.dir.join("points")).unwrap_or_default();
        let named = |line: &str| CrashPoint::ALL.iter().copied().find(|p| p.name() == line);
        log.lines().map(|line| named(line).unwrap()).collect()
    }

    /// Starts it again if it has died.
    pub(crate) fn revive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.exits.push(status);
            let again = self.again.take();
            if let Some(count) = again {
                std::fs::write(self.dir.join("crash-at"), count.to_string()).unwrap();
            }
            self.child = spawn(&self.dir, again.is_some(), self.alone);
        }
    }

    /// Runs a verb of the command line once: what it printed, or its exit status and
    /// what it said.
    pub(crate) async fn av(&mut self, line: &str, stdin: &str) -> Result<String, (i32, String)> {
        self.revive();
        let mut command = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
        command
            .env(
                "ACTOR_VOLUMES_SOCKET",
                self.dir.join("run/actor-volumes.sock"),
            )
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let stdin = stdin.to_owned();
        let run = move || {
            let mut child = command.spawn().unwrap();
            // A verb that reads no stdin may be gone already.
            let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
            child.wait_with_output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        match output.status.code() {
            Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
            code => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err((code.unwrap_or(-1), said))
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, may_crash: bool, alone: bool) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
    command
        .args(["serve", "--config"])
        .arg(dir.join("config.toml"))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    if may_crash {
        command
            .env("ACTOR_VOLUMES_CRASH_AT", dir.join("crash-at"))
            .env("ACTOR_VOLUMES_CRASH_LOG", dir.join("points"));
    }
    if alone {
        command.env("ACTOR_VOLUMES_CRASH_ALONE", "1");
    }
    command.spawn().unwrap()
}

fn config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"
[node]
name = "node-a"
state_dir = "{dir}/state"
run_dir = "{dir}/run"
mount_root = "{dir}/m"
sweep_interval_s = 1
[runtime]
nri_socket = "{dir}/nri.sock"
cri_socket = "{dir}/cri.sock"
[[driver]]
name = "{DRIVER}"
endpoint = "{dir}/csi.sock"
call_timeout_s = 5
"#
    )
}
