// SPDX-License-Identifier: Apache-2.0
//! The CSI drivers that the suite runs against.

use std::{path::Path, process::Command};

use crate::{
    leaks,
    setup::{actor_volumes, setup, testkit},
};

/// Which driver a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Our own, embedded: `actor-volumes local-driver`.
    Local,
    /// testkit's: slow or faulty where a case says so, and it takes notes.
    Testkit,
    /// csi-driver-host-path, which nobody here wrote.
    HostPath,
}

impl Driver {
    /// What its GetPluginInfo answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local.actor-volumes.dev",
            Self::Testkit => "testkit.actor-volumes.dev",
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
            Self::Testkit => {
                let mut command = testkit("testkit-csi");
                command
                    .args(["--name", self.name(), "--attach", "--socket"])
                    .arg(socket)
                    .arg("--root")
                    .arg(root)
                    .arg("--control")
                    .arg(dir.join("csi-control.json"))
                    .arg("--log")
                    .arg(dir.join("csi-calls.jsonl"));
                command
            }
            Self::HostPath => {
                let bin = setup()
                    .tool("csi-driver-host-path")
                    .expect("cases that need it are skipped without it");
                let mut command = Command::new(bin.join("hostpathplugin"));
                command
                    .args([
                        "--drivername",
                        self.name(),
                        "--nodeid",
                        "node-a",
                        "--v",
                        "5",
                    ])
                    .arg("--enable-attach=true")
                    .arg(format!("--endpoint=unix://{}", socket.display()))
                    .arg(format!("--statedir={}", root.display()));
                command
            }
        }
    }

    /// What its backend still holds.
    pub(crate) fn leftovers(self, dir: &Path) -> Vec<String> {
        let root = dir.join("backend");
        let at = |name: &str| leaks::entries(&root.join(name));
        let left = match self {
            Self::Local => [at("volumes"), at("trash")].concat(),
            Self::Testkit => at("volumes"),
            // One directory a volume beside the driver's own state file.
            Self::HostPath => {
                let is_volume = |n: &String| root.join(n).is_dir();
                at(".").into_iter().filter(is_volume).collect()
            }
        };
        let said = |name: String| format!("in the backend of {}: {name}", self.name());
        left.into_iter().map(said).collect()
    }
}
