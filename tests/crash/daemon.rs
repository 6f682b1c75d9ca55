// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve` as a process of its own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use actor_volumes::rpc::Client;

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";

/// The daemon, started again whenever it has died.
pub(crate) struct Daemon {
    dir: PathBuf,
    child: Child,
    pub(crate) exits: Vec<ExitStatus>,
}

impl Daemon {
    /// Starts it, to be aborted at the n-th hit of a point.
    pub(crate) fn start(dir: &Path, crash: Option<(&str, u32)>) -> Self {
        std::fs::write(dir.join("config.toml"), config(dir)).unwrap();
        Self {
            child: spawn(dir, crash),
            dir: dir.into(),
            exits: Vec::new(),
        }
    }

    /// Starts it again if it has died.
    pub(crate) fn revive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.exits.push(status);
            self.child = spawn(&self.dir, None);
        }
    }

    /// A client of its API; none while it is not there.
    pub(crate) async fn client(&mut self) -> Option<Client> {
        self.revive();
        let socket = self.dir.join("run/actor-volumes.sock");
        let client = Client::connect(&socket, Duration::from_secs(2)).await;
        client.ok()
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

fn spawn(dir: &Path, crash: Option<(&str, u32)>) -> Child {
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
    if let Some((point, hit)) = crash {
        command.env("ACTOR_VOLUMES_CRASH", format!("{point}:{hit}"));
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
trusted_namespaces = ["agents"]
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
