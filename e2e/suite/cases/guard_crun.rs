// SPDX-License-Identifier: Apache-2.0
//! The guard before another OCI runtime: crun, by plain bundles. (The one that is
//! set up refuses the specification that containerd writes.)

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use testkit::cri::Annotations;

use super::{SHARED, create, prepare};
use crate::{
    Case,
    driver::Driver,
    node::{NAMESPACE, Node},
    setup::{actor_volumes, setup},
};

pub(crate) fn cases() -> Vec<Case> {
    // A machine that cannot have crun has no such case; setup.sh names the skip.
    if setup().tool("crun").is_none() {
        return Vec::new();
    }
    vec![Case::new(
        "crun_runs_through_the_guard_and_not_without_the_volume",
        Driver::Local,
        crun_runs_through_the_guard_and_not_without_the_volume,
    )]
}

fn crun_runs_through_the_guard_and_not_without_the_volume(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let crun = setup().tool("crun").expect("looked for above").join("crun");
    let bundle = Bundle::new(node, &crun);

    bundle.write(&Annotations::new(), &[]);
    let bare = bundle.run(&crun, "bare");
    let guarded = bundle.run(&bundle.guard, "guarded");
    assert_eq!(bare.status.code(), Some(7), "{bare:?}");
    assert_eq!(guarded, bare);

    let mut asking = annotations;
    for (key, value) in [
        ("container-type", "container"),
        ("container-name", "agent"),
        ("sandbox-id", "s1"),
        ("sandbox-name", "pod"),
        ("sandbox-namespace", NAMESPACE),
    ] {
        asking.insert(format!("io.kubernetes.cri.{key}"), value.to_owned());
    }
    bundle.write(&asking, &[]);
    bundle.is_refused("was not given to it");
    let other = json!({"destination": "/my-data", "type": "bind", "source": "/tmp", "options": ["rbind", "rw"]});
    bundle.write(&asking, &[other]);
    bundle.is_refused("was not given to this container");
}

struct Bundle {
    dir: PathBuf,
    guard: PathBuf,
}

impl Bundle {
    fn new(node: &Node, crun: &Path) -> Self {
        let dir = node.dir.join("crun");
        let busybox = setup().tool("busybox-static").expect("every suite has it");
        for name in ["rootfs/bin", "rootfs/dev", "rootfs/proc"] {
            fs::create_dir_all(dir.join(name)).expect("a new directory");
        }
        fs::copy(busybox.join("busybox"), dir.join("rootfs/bin/busybox")).expect("it is copied");
        let guard = dir.join("actor-volumes-runtime");
        std::os::unix::fs::symlink(actor_volumes().get_program(), &guard).expect("a new directory");
        let text = format!(
            "[guard]\nruntime = \"{}\"\nsocket = \"{}/run/actor-volumes.sock\"\n",
            crun.display(),
            node.dir.display()
        );
        fs::write(dir.join("guard.toml"), text).expect("it takes files");
        Self { dir, guard }
    }

    fn write(&self, annotations: &Annotations, mounts: &[Value]) {
        let mut all = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        ];
        all.extend_from_slice(mounts);
        let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "network"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/busybox", "sh", "-c", "echo out; echo err >&2; exit 7"],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "annotations": annotations,
            "mounts": all,
            "linux": {"namespaces": namespaces},
        });
        fs::write(self.dir.join("config.json"), config.to_string()).expect("it takes files");
    }

    /// crun wants control groups of version 2 alone.
    fn run(&self, program: &Path, id: &str) -> Output {
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"")
            .arg("sh")
            .arg(program)
            .env("ACTOR_VOLUMES_CONFIG", self.dir.join("guard.toml"))
            .arg("--root")
            .arg(self.dir.join("state"))
            .arg("--cgroup-manager=disabled")
            .args(["run", "--bundle"])
            .arg(&self.dir)
            .arg(id)
            .output()
            .expect("unshare runs")
    }

    fn is_refused(&self, why: &str) {
        let output = self.run(&self.guard, "refused");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(output.stdout, b"", "nothing ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{why:?} in {said}");
    }
}
