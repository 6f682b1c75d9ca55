// SPDX-License-Identifier: Apache-2.0
//! A kubelet of its own, without an API server: its pods are files in a directory.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use testkit::cri::Annotations;

use crate::{
    daemon::Daemon,
    node::{NAMESPACE, Node},
    setup::setup,
};

/// A kubelet writes to places of the machine that no option moves, and to settings of
/// its kernel: in a mount namespace of its own it has others in their place.
const APART: &str = r#"
set -e
mount -t tmpfs kubelet /var/lib
mount -t tmpfs kubelet /var/log
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    other=/var/lib/$(echo "$name" | tr / .)
    cat "/proc/sys/$name" > "$other"
    mount --bind "$other" "/proc/sys/$name"
done
exec "$@"
"#;

/// A running kubelet.
pub(crate) struct Kubelet {
    manifests: PathBuf,
    /// Ended when it is dropped.
    _daemon: Daemon,
}

impl Kubelet {
    /// Starts it for the node's containerd.
    pub(crate) fn start(node: &Node) -> Self {
        let dir = node.dir.join("kubelet");
        let manifests = dir.join("manifests");
        fs::create_dir_all(&manifests).expect("the node's directory takes directories");
        let config = dir.join("config.yaml");
        fs::write(&config, configuration(node, &dir)).expect("it takes files");
        let bin = setup().tool("kubelet").expect("the case needs it");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "slave", "sh", "-c", APART, "sh"])
            .arg(bin.join("kubelet"))
            .arg("--config")
            .arg(config)
            .arg("--root-dir")
            .arg(dir.join("root"))
            .arg("--cert-dir")
            .arg(dir.join("pki"))
            .args(["--hostname-override", "node-a", "--v", "2"]);
        Self {
            _daemon: Daemon::start("kubelet", &mut command, &node.log("kubelet")),
            manifests,
        }
    }

    /// From now on it runs this pod.
    pub(crate) fn run(&self, name: &str, annotations: &Annotations, spec: &str) {
        let annotations = serde_json::to_string(annotations).expect("they are strings");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n  annotations: {annotations}\nspec:\n{spec}"
        );
        // Renamed into place: it is read at any moment.
        let new = self.manifests.with_file_name(name);
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, self.manifest(name)))
            .expect("the directory takes files");
    }

    /// From now on it does not.
    pub(crate) fn delete(&self, name: &str) {
        fs::remove_file(self.manifest(name)).expect("the pod was run");
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.manifests.join(format!("{name}.yaml"))
    }
}

fn configuration(node: &Node, dir: &Path) -> String {
    // Free a moment ago, which is all that can be had.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .expect("there is a free port")
        .port();
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{node}/c.sock
staticPodPath: {dir}/manifests
podLogsDir: {dir}/logs
volumePluginDir: {dir}/plugins
address: 127.0.0.1
port: {port}
healthzPort: 0
registerNode: false
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
evictionHard: {{memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}}
imageGCHighThresholdPercent: 100
fileCheckFrequency: 1s
syncFrequency: 1s
crashLoopBackOff: {{maxContainerRestartPeriod: 3s}}
featureGates: {{KubeletCrashLoopBackOffMax: true}}
resolvConf: ""
"#,
        node = node.dir.display(),
        dir = dir.display(),
        cgroup = node.cgroup_parent,
    )
}
