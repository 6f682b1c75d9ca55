// SPDX-License-Identifier: Apache-2.0
//! Containers of the DaemonSet as OCI bundles, run by runc on a node of the suite: what
//! a kubelet and containerd make of the manifest, as far as it is the manifest's.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use actor_volumes::host::privileges::{CapabilitySet, names};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};

use crate::{
    daemon::Daemon,
    manifest::{Container, Mount, Source},
    node::Node,
    setup::setup,
};

/// What containerd hides of /proc and /sys from containers.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where things of the manifest are on this node.
pub(crate) struct Here {
    /// Host paths, and what stands for them.
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// The directories with the files of ConfigMaps and Secrets.
    pub(crate) objects: BTreeMap<String, PathBuf>,
    /// What a field of the pod is, `$` before its path.
    pub(crate) fields: BTreeMap<String, String>,
    /// The directory that must have one path for everybody.
    pub(crate) mount_root: (String, PathBuf),
}

/// Runs a container of the manifest; it ends with the daemon. Its root file system holds
/// the static program and nothing else.
pub(crate) fn run(node: &Node, container: &Container, here: &Here) -> Daemon {
    let name: &'static str = match container.name.as_str() {
        "node" => "daemon-set-node",
        "helper" => "daemon-set-helper",
        other => panic!("the manifest has another container: {other}"),
    };
    let bundle = node.dir.join(name);
    let root = bundle.join("rootfs");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(&bundle).expect("the bundle is new");
    // runc makes the mount in which the root file system lies a private one. On a host
    // that is not the mount of the volumes.
    mount_tmpfs(&bundle);
    builder.create(&root).expect("it takes directories");
    let program = env::var_os("AV_E2E_STATIC").map(PathBuf::from);
    let program = program.expect("AV_E2E_STATIC is not set: start the suite with e2e/run.sh");
    // The first word of the command is where the image has it.
    let inside = container.command[0].trim_start_matches('/');
    fs::copy(program, root.join(inside)).expect("the static program is there");
    let config = config(node, container, here);
    fs::write(bundle.join("config.json"), config.to_string()).expect("it takes files");
    let runc = setup().tool("runc").expect("every node has runc");
    let mut command = Command::new(runc.join("runc"));
    command
        .arg("--root")
        .arg(node.dir.join("runc-daemon-set"))
        .arg("run")
        .arg("--bundle")
        .arg(&bundle)
        .arg(name);
    Daemon::start(name, &mut command, &node.log(name))
}

fn mount_tmpfs(at: &Path) {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "mode=755", "actor-volumes-e2e"]);
    let status = command.arg(at).status().expect("mount runs");
    assert!(status.success(), "a tmpfs at {}: {status}", at.display());
}

/// Takes away what a container that has ended was made of.
pub(crate) fn remove(node: &Node, daemon: &Daemon) {
    let bundle = node.dir.join(daemon.name);
    unmount(&bundle, UnmountFlags::NOFOLLOW).expect("nothing runs from it");
}

/// The process of a container.
pub(crate) fn pid(node: &Node, daemon: &Daemon) -> u32 {
    let file = node
        .dir
        .join("runc-daemon-set")
        .join(daemon.name)
        .join("state.json");
    let text = fs::read_to_string(file).expect("runc keeps its state");
    let state: Value = serde_json::from_str(&text).expect("it is JSON");
    let pid = state["init_process_pid"].as_u64();
    pid.and_then(|p| p.try_into().ok())
        .expect("it has a process")
}

fn config(node: &Node, container: &Container, here: &Here) -> Value {
    // The runtime's profile is containerd's to make: here it is our own filter alone.
    assert_eq!(container.seccomp.is_none(), container.privileged);
    let capabilities = if container.privileged {
        names(all())
    } else {
        let named = container.capabilities.iter();
        named.map(|c| format!("CAP_{c}")).collect()
    };
    let fill = |text: &String| {
        let mut text = text.clone();
        for (name, field) in &container.env {
            text = text.replace(&format!("$({name})"), &here.fields[field]);
        }
        text
    };
    let sys = if container.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", sys] }),
    ];
    mounts.extend(container.mounts.iter().map(|m| mount(m, here)));
    let shared = container
        .mounts
        .iter()
        .any(|m| m.propagation == "Bidirectional");
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": container.read_only_root },
        "hostname": "a-pod",
        "process": {
            "user": { "uid": container.user, "gid": 0 },
            "args": container.command.iter().map(fill).collect::<Vec<_>>(),
            "cwd": "/",
            "env": ["PATH=/"],
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": container.no_new_privileges,
        },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": format!("{}/{}", node.cgroup_parent, container.name),
            // hostPID: the processes of the node. A network of the pod's own would need
            // a plugin that makes it.
            "namespaces": [{ "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
            "rootfsPropagation": if shared { "rshared" } else { "rslave" },
            "maskedPaths": if container.privileged { &[][..] } else { &MASKED[..] },
            "readonlyPaths": if container.privileged { &[][..] } else { &READ_ONLY[..] },
            "resources": { "devices": [{ "allow": container.privileged, "access": "rwm" }] },
        },
    })
}

fn mount(mount: &Mount, here: &Here) -> Value {
    let source = match &mount.source {
        Source::HostPath(path) => &here.paths[path],
        Source::ConfigMap(name) | Source::Secret(name) => &here.objects[name],
    };
    let (theirs, ours) = &here.mount_root;
    let at = if mount.at == *theirs {
        ours.as_path()
    } else {
        Path::new(&mount.at)
    };
    let propagation = match mount.propagation.as_str() {
        "None" => "rprivate",
        "HostToContainer" => "rslave",
        "Bidirectional" => "rshared",
        other => panic!("no such propagation: {other}"),
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    json!({
        "destination": at,
        "type": "bind",
        "source": source,
        "options": ["rbind", propagation, access],
    })
}

/// All capabilities that this machine has.
fn all() -> CapabilitySet {
    let text = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = text.lines().find_map(|l| l.strip_prefix("CapBnd:"));
    let bits = u64::from_str_radix(line.expect("it is there").trim(), 16);
    CapabilitySet::from_bits_retain(bits.expect("it is hexadecimal"))
}
