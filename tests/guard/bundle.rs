// SPDX-License-Identifier: Apache-2.0
//! A directory with a guard, a script as the real runtime, and a bundle.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

/// Leaves a mark, so that it shows whether it was started.
const MARKING: &str = "echo \"$@\" > \"${0%/*}/started\"";

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("avg").tempdir().unwrap();
        let place = Self { dir };
        let program = env!("CARGO_BIN_EXE_actor-volumes");
        symlink(program, place.path("actor-volumes-runtime")).unwrap();
        fs::create_dir(place.path("bundle")).unwrap();
        place.runtime(MARKING);
        place.configure(&place.path("none.sock"), 20_000);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The real runtime is this shell script.
    pub(crate) fn runtime(&self, script: &str) {
        let path = self.path("runc");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    pub(crate) fn configure(&self, socket: &Path, deadline_ms: u64) {
        let runtime = self.path("runc").display().to_string();
        let socket = socket.display();
        let text = format!(
            "[guard]\nruntime = \"{runtime}\"\nsocket = \"{socket}\"\ndeadline_ms = {deadline_ms}\n"
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// The guard under its own name.
    pub(crate) fn guard(&self) -> Command {
        let mut command = Command::new(self.path("actor-volumes-runtime"));
        command.env("ACTOR_VOLUMES_CONFIG", self.path("config.toml"));
        command
    }

    pub(crate) fn write_config(&self, config: &Value) {
        fs::write(self.path("bundle/config.json"), config.to_string()).unwrap();
    }

    /// Makes the container `id` of the bundle, as a shim does.
    pub(crate) fn create(&self, id: &str) -> Made {
        for left in ["started", "log.json"] {
            let _ = fs::remove_file(self.path(left));
        }
        let output = self
            .guard()
            .args(["--root", "/r", "--log-format", "json", "--log"])
            .arg(self.path("log.json"))
            .args(["create", "--bundle"])
            .arg(self.path("bundle"))
            .arg("--pid-file")
            .arg(self.path("bundle/init.pid"))
            .arg(id)
            .output()
            .unwrap();
        Made {
            started: self.path("started").exists(),
            log: fs::read_to_string(self.path("log.json")).unwrap_or_default(),
            output,
        }
    }
}

/// What became of a creation.
pub(crate) struct Made {
    pub(crate) started: bool,
    log: String,
    output: Output,
}

impl Made {
    /// The container was made by the real runtime.
    pub(crate) fn is_made(&self) {
        assert!(self.started, "refused: {}", self.stderr());
        assert!(self.output.status.success());
        assert_eq!(self.log, "");
    }

    /// The container was not made, for a reason with these words, and the shim is
    /// told.
    pub(crate) fn is_refused(&self, why: &str) {
        assert!(!self.started, "the runtime was started: {why}");
        assert_eq!(self.output.status.code(), Some(1));
        let stderr = self.stderr();
        assert!(stderr.contains(why), "{why:?} in {stderr}");
        assert!(stderr.starts_with("actor-volumes: container "), "{stderr}");
        let line: Value = serde_json::from_str(self.log.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["msg"], stderr.trim_end());
        let time = line["time"].as_str().unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// config.json of a pod's container, as containerd writes it with the annotations
/// passed on.
pub(crate) fn config(
    sandbox: &str,
    name: &str,
    annotations: &BTreeMap<String, String>,
    mounts: &[Value],
) -> Value {
    let mut all = annotations.clone();
    for (key, value) in [
        ("container-type", "container"),
        ("container-name", name),
        ("sandbox-id", sandbox),
        ("sandbox-name", &format!("pod-{sandbox}")),
        ("sandbox-namespace", "agents"),
    ] {
        all.insert(format!("io.kubernetes.cri.{key}"), value.to_owned());
    }
    let mut every = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
    ];
    every.extend_from_slice(mounts);
    json!({
        "ociVersion": "1.1.0",
        "root": {"path": "rootfs"},
        "annotations": all,
        "mounts": every,
        "linux": {"devices": null},
    })
}

/// A bind mount of config.json.
pub(crate) fn bind(destination: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}
