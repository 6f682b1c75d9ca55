// SPDX-License-Identifier: Apache-2.0
//! A machine: a mount namespace and a network namespace that live as long as one
//! process, in which daemons are started and killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::AT_LAST;

pub(crate) struct Machine {
    holder: Child,
    pub(crate) dir: PathBuf,
    daemon: Option<Child>,
}

impl Machine {
    /// Sees what the test mounts, and shares no network with it.
    pub(crate) fn start(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "--net"])
            .args(["sh", "-c", "ip link set lo up && exec sleep 1000"])
            .spawn()
            .unwrap();
        let machine = Self {
            holder,
            dir,
            daemon: None,
        };
        // The namespaces are there when its shell has become `sleep`.
        let start = Instant::now();
        let comm = format!("/proc/{}/comm", machine.pid());
        while fs::read_to_string(&comm).unwrap().trim() != "sleep" {
            assert!(start.elapsed() < AT_LAST, "the namespaces were not made");
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target"]).args([
            &self.pid().to_string(),
            "--",
            program,
        ]);
        command
    }

    pub(crate) fn ip(&self, words: &str) {
        let done = self.enter("ip").args(words.split(' ')).status().unwrap();
        assert!(done.success(), "ip {words}");
    }

    /// A cable to another machine, with an address at each end.
    pub(crate) fn connect(&self, number: u8, other: &Self) {
        let pid = other.pid();
        self.ip(&format!(
            "link add to-{number} type veth peer name eth0 netns {pid}"
        ));
        self.ip(&format!("addr add 10.77.{number}.1/24 dev to-{number}"));
        self.ip(&format!("link set to-{number} up"));
        other.ip(&format!("addr add 10.77.{number}.2/24 dev eth0"));
        other.ip("link set eth0 up");
    }

    /// Starts `actor-volumes <verb>` with this configuration.
    pub(crate) fn run(&mut self, verb: &str, config: &str) {
        let file = self.dir.join("config.toml");
        fs::write(&file, config).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let daemon = self
            .enter(env!("CARGO_BIN_EXE_actor-volumes"))
            .args([verb, "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.daemon = Some(daemon.unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a verb of the command line against a socket.
pub(crate) fn verb(socket: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
        .arg("--socket")
        .arg(socket)
        .args(words.split(' '))
        .output()
        .unwrap()
}
