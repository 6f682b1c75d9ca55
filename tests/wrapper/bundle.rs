// SPDX-License-Identifier: Apache-2.0
//! Plain bundles.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::host::{Host, tool};

/// Says that it runs, and idles.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; : > /tmp/ready; while :; do sleep 0.2; done";

pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
}

impl Bundle {
    /// A container that idles, with these annotations.
    pub(crate) fn new(host: &Host, name: &str, annotations: &BTreeMap<String, String>) -> Self {
        Self::with(host, name, annotations, |_| ())
    }

    /// The same, with a specification that is changed.
    pub(crate) fn with(
        host: &Host,
        name: &str,
        annotations: &BTreeMap<String, String>,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let dir = host.path(name);
        let busybox = tool("busybox-static").expect("e2e/tools/setup.sh busybox-static makes it");
        for name in ["rootfs/bin", "rootfs/dev", "rootfs/proc", "rootfs/tmp"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let program = dir.join("rootfs/bin/busybox");
        fs::copy(busybox.join("busybox"), &program).unwrap();
        let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "network"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/busybox", "sh", "-c", IDLE],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "annotations": annotations,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("/actor-volumes-wrapper-{}/{name}", std::process::id()),
                "new": {"of": 1.50},
            },
        });
        change(&mut config);
        let bundle = Self { dir };
        bundle.write(&serde_json::to_string_pretty(&config).unwrap());
        // The applets by their names.
        for applet in ["sleep", "cat", "dd", "blockdev", "stat", "touch"] {
            std::os::unix::fs::symlink("busybox", program.with_file_name(applet)).unwrap();
        }
        bundle
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    pub(crate) fn write(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    pub(crate) fn read(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Its mounts below this directory: where, and what.
    pub(crate) fn given(&self, mount_root: &Path) -> Vec<(String, PathBuf)> {
        let config = self.read();
        let mounts = config["mounts"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        mounts
            .map(|m| (text(&m["destination"]), PathBuf::from(text(&m["source"]))))
            .filter(|(_, source)| source.starts_with(mount_root))
            .collect()
    }
}

impl Drop for Bundle {
    /// Control groups that the runtime of a test that failed has left.
    fn drop(&mut self) {
        let name = self.dir.file_name().unwrap();
        let of_this = format!("actor-volumes-wrapper-{}", std::process::id());
        let Ok(controllers) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        for controller in controllers.flatten() {
            let parent = controller.path().join(&of_this);
            let _ = fs::remove_dir(parent.join(name));
            let _ = fs::remove_dir(parent);
        }
    }
}
