// SPDX-License-Identifier: Apache-2.0
//! The driver as a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use actor_volumes::host::mount::is_mount_point;
use actor_volumes_testkit::csi::{Backend, Cleanup};
use tonic::Code;

use crate::bench::{Caller, MIB, until};

struct Process(Child);

impl Process {
    /// Started, and listening.
    fn new(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_testkit-csi"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.contains("serves on"), "{line}");
        Self(child)
    }

    fn terminate(mut self) {
        let pid = self.0.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(kill.unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // As a crash: nothing is tidied.
        let _gone = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn help_names_every_flag_and_nonsense_is_refused() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testkit-csi"));
        command.args(arguments).output().unwrap()
    };
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let source = include_str!("../../src/bin/testkit-csi.rs");
    let read = source.lines().filter_map(|l| l.trim().strip_prefix("\"--"));
    let flags: Vec<_> = read.filter_map(|l| l.split_once('"')).collect();
    assert!(flags.len() > 30);
    for (flag, _) in flags {
        assert!(help.contains(&format!("--{flag}")), "{flag}");
    }
    for bad in [
        &["--socket", "/s"][..],
        &["--socket", "/s", "--root", "/r", "--node", "a=/b"],
        &["--controller", "/s", "--root", "/r"],
        &["--socket", "/s", "--root", "/r", "--backend", "floppy"],
        &["--socket", "/s", "--root", "/r", "--expand", "maybe"],
        &["--socket", "/s", "--root", "/r", "--secret", "nobody:a=b"],
        &["--socket", "/s", "--root", "/r", "--chaos", "1"],
        &["--unknown"],
    ] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[tokio::test]
async fn a_cluster_is_served_and_steered_through_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (controller, a) = (at("controller.sock"), at("a.sock"));
    let node = format!("node-a={}", text(&a));
    let root = at("backend");
    let _process = Process::new(&[
        "--controller",
        text(&controller),
        "--node",
        &node,
        "--root",
        text(&root),
        "--backend",
        "memory",
        "--attach",
        "--list-nodes",
        "--capacity",
        "12345",
    ]);
    let mut caller = Caller::new(dir.path(), &controller, &a, "node-a").await;
    assert_eq!(caller.create().await.unwrap().capacity_bytes, 12345);
    caller.attach().await.unwrap();
    let listed = caller.list(0, "").await.unwrap().entries;
    let nodes = &listed[0].status.as_ref().unwrap().published_node_ids;
    assert_eq!(nodes, &["node-a"]);
    let say = |json: String| {
        fs::write(at("control.new"), json).unwrap();
        fs::rename(at("control.new"), at("csi-control.json")).unwrap();
    };
    say(r#"{"fail_after":{"NodeStageVolume":"Internal"}}"#.into());
    assert_eq!(caller.stage().await.err().unwrap().code(), Code::Internal);
    say(format!(r#"{{"forget":["{}"]}}"#, caller.id));
    assert_eq!(caller.stage().await.err().unwrap().code(), Code::NotFound);
    caller.create().await.unwrap();
    say(r#"{"chaos":{"seed":1,"percent":100}}"#.into());
    let mut failed = 0;
    for _ in 0..10 {
        failed += usize::from(caller.list(0, "").await.is_err());
    }
    assert!(failed > 0);
    let calls = fs::read_to_string(at("csi-calls.jsonl")).unwrap();
    assert!(calls.contains("\"NodeStageVolume\"") && calls.contains("\"node\":\"node-a\""));
    assert!(!at("csi-violations.jsonl").exists());
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_killed_driver_goes_on_where_it_was_and_tidies_only_when_told_to() {
    for kind in ["bind", "loop", "fuse"] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (socket, root) = (at("csi.sock"), at("backend"));
        let backend = match kind {
            "bind" => Backend::Bind { root: root.clone() },
            "loop" => Backend::Loop { root: root.clone() },
            _ => Backend::Fuse {
                root: root.clone(),
                server: env!("CARGO_BIN_EXE_testkit-csi").into(),
            },
        };
        let _cleanup = Cleanup::new(&backend);
        let arguments = [
            "--socket",
            text(&socket),
            "--root",
            text(&root),
            "--backend",
            kind,
        ];
        let process = Process::new(&arguments);
        let mut caller = Caller::new(dir.path(), &socket, &socket, "node-a").await;
        caller.up().await;
        let target = caller.path("target");
        fs::write(target.join("f"), "kept").unwrap();
        drop(process);
        assert_eq!(
            fs::read_to_string(target.join("f")).unwrap(),
            "kept",
            "{kind}"
        );

        let process = Process::new(&arguments);
        let before = caller;
        let mut caller = Caller::new(dir.path(), &socket, &socket, "node-a").await;
        (caller.id, caller.volume_context) = (before.id, before.volume_context);
        caller.publish().await.unwrap();
        // It still knows the first request.
        let mut other = caller.creation();
        other.capacity_range.as_mut().unwrap().required_bytes = MIB;
        caller.clone().create_as(other).await.err().unwrap();
        let broken = fs::read_to_string(at("csi-violations.jsonl")).unwrap();
        assert_eq!(broken.lines().count(), 1, "{broken}");
        assert!(broken.contains("capacity_range"), "{broken}");
        process.terminate();
        assert!(is_mount_point(&target).unwrap(), "{kind}");

        Process::new(&[&arguments[..], &["--cleanup"]].concat()).terminate();
        until("the target is free", || !is_mount_point(&target).unwrap());
        let staging = caller.path("staging");
        until("staging is free", || !is_mount_point(&staging).unwrap());
    }
}
