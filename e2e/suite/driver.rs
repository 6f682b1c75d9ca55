// SPDX-License-Identifier: Apache-2.0
//! The CSI drivers that the suite runs against.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    canary, leaks,
    setup::{actor_volumes, setup, testkit},
};

/// Files of testkit's driver, below the node's directory.
const CONTROL: &str = "csi-control.json";
const CALLS: &str = "csi-calls.jsonl";
const VIOLATIONS: &str = "csi-violations.jsonl";

/// Which driver a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Our own, embedded: `actor-volumes local-driver`.
    Local,
    /// testkit's: slow or faulty where a case says so, and it takes notes.
    Testkit,
    /// The same over loop devices: file systems of a size, and raw volumes.
    TestkitLoop,
    /// The same over FUSE: a process serves each volume, and may be stopped.
    TestkitFuse,
    /// csi-driver-host-path, which nobody here wrote.
    HostPath,
}

impl Driver {
    /// What its GetPluginInfo answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local.actor-volumes.dev",
            Self::Testkit | Self::TestkitLoop | Self::TestkitFuse => "testkit.actor-volumes.dev",
            Self::HostPath => "hostpath.csi.k8s.io",
        }
    }

    /// The tool that it needs.
    pub(crate) fn tool(self) -> Option<&'static str> {
        (self == Self::HostPath).then_some("csi-driver-host-path")
    }

    /// How it is started.
    pub(crate) fn command(self, dir: &Path, socket: &Path) -> Command {
        let root = dir.join("backend");
        match self {
            Self::Local => {
                let mut command = actor_volumes();
                command
                    .args(["local-driver", "--name", self.name(), "--socket"])
                    .arg(socket)
                    .arg("--root")
                    .arg(root);
                command
            }
            Self::Testkit | Self::TestkitLoop | Self::TestkitFuse => {
                let mut command = testkit("testkit-csi");
                command
                    .args(["--name", self.name(), "--attach", "--socket"])
                    .arg(socket)
                    .arg("--root")
                    .arg(root)
                    .arg("--control")
                    .arg(dir.join(CONTROL))
                    .arg("--log")
                    .arg(dir.join(CALLS));
                canary::expected(&mut command);
                if self == Self::TestkitLoop {
                    command.args(["--backend", "loop", "--expand", "online", "--stats"]);
                }
                if self == Self::TestkitFuse {
                    command.args(["--backend", "fuse"]);
                }
                command
            }
            Self::HostPath => {
                let bin = setup()
                    .tool("csi-driver-host-path")
                    .expect("cases that need it are skipped without it");
                // It keeps volumes in /tmp: so it has a /tmp of its own. run.sh
                // made /tmp private; all other mounts still reach the node. The
                // program is opened before: the tools may lie below /tmp.
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "--propagation", "unchanged", "sh", "-c"])
                    .arg("mkdir -p \"$1\" && exec 3< \"$2\" && mount --bind \"$1\" /tmp && shift 2 && exec /proc/self/fd/3 \"$@\"")
                    .args(["sh".as_ref(), root.as_os_str()])
                    .arg(bin.join("hostpathplugin"))
                    .args(["-drivername", self.name(), "-nodeid", "node-a"])
                    .arg("-endpoint")
                    .arg(format!("unix://{}", socket.display()));
                command
            }
        }
    }

    /// What its backend holds, one entry a volume.
    pub(crate) fn volumes(self, dir: &Path) -> Vec<String> {
        let root = dir.join("backend");
        let at = |name: &str| leaks::entries(&root.join(name));
        match self {
            Self::Local => [at("volumes"), at("trash")].concat(),
            Self::Testkit | Self::TestkitLoop | Self::TestkitFuse => at("volumes"),
            Self::HostPath => at("."),
        }
    }
}

/// How many calls of this name testkit's driver has written down.
pub(crate) fn calls(dir: &Path, method: &str) -> usize {
    let of = |line: &&Value| line["method"] == method;
    lines(&dir.join(CALLS)).iter().filter(of).count()
}

/// The rules of CSI that we broke, as testkit's driver saw it.
pub(crate) fn violations(dir: &Path) -> Vec<String> {
    let violations = lines(&dir.join(VIOLATIONS)).into_iter();
    violations
        .map(|v| format!("a rule of CSI was broken: {v}"))
        .collect()
}

/// Makes testkit's driver answer calls of this name so much later.
pub(crate) fn set_delay(dir: &Path, method: &str, delay: Duration) {
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    set_faults(dir, &json!({ "delay_ms": { method: delay } }));
}

/// Makes testkit's driver leave calls of this name without an answer until
/// another fault is set.
pub(crate) fn set_hang(dir: &Path, method: &str) {
    set_faults(dir, &json!({ "hang": { method: true } }));
}

/// Makes testkit's driver stop in the middle of calls of this name.
pub(crate) fn set_hang_midway(dir: &Path, method: &str) {
    set_faults(dir, &json!({ "hang_midway": { method: true } }));
}

/// Stops the server of a volume's file system, or lets it go on.
pub(crate) fn set_frozen(dir: &Path, volume: &str, frozen: bool) {
    let order = if frozen { "freeze" } else { "thaw" };
    set_faults(dir, &json!({ "fuse": { volume: order } }));
}

/// Tells testkit's driver that this node is off.
pub(crate) fn set_off(dir: &Path, node: &str) {
    set_faults(dir, &json!({ "fence": [node] }));
}

/// Ends all faults.
pub(crate) fn clear_faults(dir: &Path) {
    set_faults(dir, &json!({}));
}

/// Makes testkit's driver answer with what no driver should.
pub(crate) fn set_hostile(dir: &Path, hostile: &Value) {
    set_faults(dir, &json!({ "hostile": hostile }));
}

/// The same, in the message of a call of this name that fails.
pub(crate) fn set_hostile_message(dir: &Path, method: &str, message: &str) {
    let faults = json!({ "hostile": {"message": message}, "fail": { method: "Internal" } });
    set_faults(dir, &faults);
}

fn set_faults(dir: &Path, faults: &Value) {
    // Renamed into place: the driver may read it at any moment.
    let new = dir.join("csi-control.new");
    fs::write(&new, faults.to_string())
        .and_then(|()| fs::rename(&new, dir.join(CONTROL)))
        .expect("the node's directory takes files");
}

/// The values of a file with one JSON value a line; none when it is not there.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = |line: &str| serde_json::from_str(line).ok();
    text.lines().filter_map(value).collect()
}
