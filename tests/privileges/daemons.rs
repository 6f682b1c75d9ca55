// SPDX-License-Identifier: Apache-2.0
//! The daemons themselves: what the kernel says of each of their threads.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use actor_volumes::host::privileges::{CapabilitySet, Process};

#[path = "../nodes/authority.rs"]
mod authority;
use authority::Authority;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it in a directory of its own.
fn start(process: Process, dir: &Path, more: &str) -> Daemon {
    let at = dir.display();
    let config = format!(
        "[node]\nname = \"a\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\n\
         mount_root = \"{at}/m\"\n[runtime]\nnri_socket = \"{at}/nri.sock\"\n\
         cri_socket = \"{at}/cri.sock\"\n{more}"
    );
    let file = dir.join("config.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
    command.arg(process.to_string());
    match process {
        Process::LocalDriver => command
            .arg("--socket")
            .arg(dir.join("csi.sock"))
            .arg("--root")
            .arg(dir.join("volumes")),
        _ => command.arg("--config").arg(file),
    };
    if process == Process::Node {
        command.arg("--no-helper");
    }
    let log = fs::File::create(dir.join("log")).unwrap();
    Daemon(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
}

/// A line of the status of each thread.
fn of_threads(daemon: &Daemon, name: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap();
    let value = |path: &Path| {
        let text = fs::read_to_string(path.join("status")).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        Some(line.unwrap().trim().to_owned())
    };
    threads.filter_map(|t| value(&t.unwrap().path())).collect()
}

/// Waits until it says what it keeps; then no thread of it has more.
fn keeps(process: Process, low_port: bool, more: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = start(process, dir.path(), more);
    let said = loop {
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        if let Some(line) = log.lines().find(|l| l.contains("privileges: ")) {
            break line.to_owned();
        }
        assert!(daemon.0.try_wait().unwrap().is_none(), "{process}: {log}");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(said.contains(&format!("{process} keeps ")), "{said}");
    let shown = |set: CapabilitySet| format!("{:016x}", set.bits());
    let kept = shown(process.capabilities(low_port));
    let used = shown(process.used(low_port));
    let nothing = shown(CapabilitySet::empty());
    for (name, wanted) in [
        ("CapPrm:", kept.as_str()),
        ("CapEff:", &used),
        ("CapBnd:", &kept),
        ("CapInh:", &nothing),
        ("CapAmb:", &nothing),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        let found = of_threads(&daemon, name);
        assert!(!found.is_empty());
        for value in found {
            assert_eq!(value, wanted, "{process}: {name}");
        }
    }
}

#[test]
#[ignore = "needs root: there is nothing to give up without"]
fn every_daemon_keeps_its_lines_of_the_table_and_nothing_else() {
    let tls = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.files(tls.path(), "a", &authority);
    let at = tls.path().display();
    let files = format!("ca = \"{at}/ca.crt\"\ncert = \"{at}/tls.crt\"\nkey = \"{at}/tls.key\"\n");
    let control = format!("[control]\nlisten = \"127.0.0.1:0\"\n[control.tls]\n{files}");
    let node =
        format!("[node.control]\nendpoint = \"https://127.0.0.1:1\"\n[node.control.tls]\n{files}");
    for (process, more) in [
        (Process::Serve, ""),
        (Process::Control, &control),
        (Process::Node, &node),
        (Process::NodeAndHelper, &node),
        (Process::Helper, ""),
        (Process::LocalDriver, ""),
    ] {
        keeps(process, false, more);
    }
}

#[test]
#[ignore = "needs root: there is nothing to give up without"]
fn a_port_below_1024_is_the_only_reason_to_keep_its_capability() {
    let low = "[metrics]\nlisten = \"127.0.0.1:1009\"\n";
    keeps(Process::Serve, true, low);
    let high = "[metrics]\nlisten = \"127.0.0.1:0\"\n";
    keeps(Process::Serve, false, high);
}
