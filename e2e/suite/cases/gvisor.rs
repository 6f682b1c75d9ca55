// SPDX-License-Identifier: Apache-2.0
//! gVisor: each of its containers has a process of its own, the gofer, that holds the
//! container's mounts in a mount namespace of its own. When does it let go?

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{SHARED, create, prepare, qualified};
use crate::{
    Case,
    daemon::until,
    driver::Driver,
    node::{Node, SOON},
    setup::setup,
};

/// The sandbox, and the container in it that has the volume.
const SANDBOX: &str = "sandbox";
const AGENT: &str = "agent";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "gvisor_holds_a_volume_until_its_container_ends_and_not_until_its_sandbox_does",
            Driver::Local,
            gvisor_holds_a_volume_until_its_container_ends_and_not_until_its_sandbox_does,
        )
        .needing("runsc"),
    ]
}

fn gvisor_holds_a_volume_until_its_container_ends_and_not_until_its_sandbox_does(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, _) = node.run_agent(&annotations);
    let volume = published(node);

    let gvisor = Gvisor::new(node);
    gvisor.start(SANDBOX, &Value::Null, &[], "sleep 1000");
    let mount = json!({"destination": "/my-data", "type": "bind", "source": volume, "options": ["rbind", "rw"]});
    gvisor.start(
        AGENT,
        &json!(SANDBOX),
        &[mount],
        "echo kept > /my-data/f && sleep 1000",
    );
    until("it has written", SOON, || fs::read(volume.join("f")).ok());

    node.remove_pod(&pod);
    node.must(&["actor", "suspend", &qualified("a")]);
    let listed: Value =
        serde_json::from_str(&node.must(&["volume", "ls", "-o", "json"])).expect("it is JSON");
    let uid = listed[0]["uid"].as_str().expect("a uid is text");
    let held = until("it is told who holds the volume", SOON, || {
        let text = node.must(&["volume", "show", uid, "-o", "json"]);
        text.contains("(runsc) has it at /my-data").then_some(text)
    });
    assert_ne!(node.held_mounts(), [""; 0], "{held}");

    gvisor.run(&["kill", AGENT, "KILL"]);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    let listed = gvisor.run(&["list", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    let of = |name: &str| {
        let all = listed.as_array().expect("it is a list");
        let found = all.iter().find(|c| c["id"] == name);
        found.expect("it is listed")["status"].clone()
    };
    assert_eq!(
        (of(SANDBOX), of(AGENT)),
        (json!("running"), json!("stopped"))
    );

    gvisor.run(&["delete", AGENT]);
    gvisor.run(&["delete", "--force", SANDBOX]);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
}

/// Where the only volume is published.
fn published(node: &Node) -> PathBuf {
    let mut mounts = node.held_mounts();
    mounts.retain(|mount| mount.contains("/pub/"));
    let [mount] = mounts.as_slice() else {
        panic!("not one publication: {mounts:?}");
    };
    mount.into()
}

/// Plain bundles, as its shim makes them.
struct Gvisor {
    program: PathBuf,
    dir: PathBuf,
}

impl Gvisor {
    fn new(node: &Node) -> Self {
        let program = setup().tool("runsc").expect("the case needs it");
        Self {
            program: program.join("runsc"),
            dir: node.dir.join("gvisor"),
        }
    }

    fn start(&self, name: &str, sandbox: &Value, mounts: &[Value], script: &str) {
        let bundle = self.dir.join(name);
        fs::create_dir_all(bundle.join("rootfs/bin")).expect("the node takes directories");
        let busybox = setup().tool("busybox-static").expect("every suite has it");
        fs::copy(busybox.join("busybox"), bundle.join("rootfs/bin/busybox")).expect("it is copied");
        let proc = json!({"destination": "/proc", "type": "proc", "source": "proc"});
        let mounts: Vec<&Value> = [&proc].into_iter().chain(mounts).collect();
        let annotations = if sandbox.is_null() {
            json!({"io.kubernetes.cri.container-type": "sandbox"})
        } else {
            json!({
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": sandbox,
            })
        };
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/busybox", "sh", "-c", script],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "annotations": annotations,
            "mounts": mounts,
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
        });
        fs::write(bundle.join("config.json"), config.to_string()).expect("it takes files");
        self.run(&["create", "--bundle", &bundle.display().to_string(), name]);
        self.run(&["start", name]);
    }

    /// Runs `runsc`, which must succeed; what it printed. Its output is a file, for a
    /// pipe would stay open in the container.
    fn run(&self, arguments: &[&str]) -> String {
        let (out, errors) = (self.dir.join("out"), self.dir.join("errors"));
        let file = |path: &Path| fs::File::create(path).expect("the node takes files");
        let status = Command::new("timeout")
            .args(["--signal", "KILL", "60"])
            .arg(&self.program)
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(["--ignore-cgroups", "--network=none", "--platform=systrap"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(file(&out))
            .stderr(file(&errors))
            .status()
            .expect("timeout runs");
        let text = |path: &Path| fs::read_to_string(path).expect("it is text");
        assert!(
            status.success(),
            "{arguments:?}: {status}: {}",
            text(&errors)
        );
        text(&out)
    }
}
