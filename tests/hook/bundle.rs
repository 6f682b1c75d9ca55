// SPDX-License-Identifier: Apache-2.0
//! A directory with a node agent and a bundle whose container has hooks.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use actor_volumes::host::mountinfo;
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    runtimes::{Runtime, tool},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_actor-volumes");

/// Everything that takes longer never comes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What a user namespace adds to the ids of its container.
pub(crate) const SHIFT: u32 = 100_000;

static NEXT: AtomicU32 = AtomicU32::new(1);

pub(crate) struct Place {
    // Before the directory goes, nothing is published in it any more.
    pub(crate) agent: Agent,
    pub(crate) config: Value,
    /// The containers that were made here.
    made: Mutex<Vec<String>>,
    pub(crate) dir: tempfile::TempDir,
}

/// A mount of the grant: the volume, its path, whether it is read-only.
pub(crate) type Asked<'a> = (&'a str, &'a str, bool);

/// The annotations of a grant for a container that no pod holds.
pub(crate) fn annotations(mounts: &[Asked<'_>]) -> BTreeMap<String, String> {
    let mut names: Vec<_> = mounts.iter().map(|(volume, ..)| *volume).collect();
    names.sort_unstable();
    names.dedup();
    let volume = |name: &&str| {
        json!({"name": name, "uid": format!("uid-{name}"), "generation": 1, "driver": "d.test",
            "volumeId": name, "volumeMode": if name.starts_with("raw") { "Block" } else { "Filesystem" },
            "accessMode": "SINGLE_NODE_SINGLE_WRITER"})
    };
    let files = mounts
        .iter()
        .filter(|(volume, ..)| !volume.starts_with("raw"));
    let devices = mounts
        .iter()
        .filter(|(volume, ..)| volume.starts_with("raw"));
    let grant = json!({
        "version": 1,
        "actor": {"namespace": "agents", "name": "a", "uid": "u1"},
        "node": "n",
        "audience": {"kind": "host", "node": "n"},
        "volumes": names.iter().map(volume).collect::<Vec<_>>(),
        "mounts": files.map(|(volume, path, read_only)| json!({
            "container": "agent", "volume": volume, "mountPath": path, "readOnly": read_only,
        })).collect::<Vec<_>>(),
        "devices": devices.map(|(volume, path, _)| json!({
            "container": "agent", "volume": volume, "devicePath": path,
        })).collect::<Vec<_>>(),
    });
    BTreeMap::from([
        ("actor-volumes.dev/actor".into(), "agents/a".into()),
        ("actor-volumes.dev/attachments".into(), grant.to_string()),
    ])
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("avh").tempdir().unwrap();
        // A container's root in a user namespace goes through it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let rootfs = dir.path().join("bundle/rootfs");
        for name in ["bin", "proc", "dev", "etc", "sys"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = tool("busybox-static").unwrap().join("busybox");
        fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        let place = Self {
            agent: Agent::start(dir.path()),
            config: spec(),
            made: Mutex::default(),
            dir,
        };
        place.settings("");
        place
    }

    /// The configuration, with more of its table `[guard]`.
    pub(crate) fn settings(&self, more: &str) {
        let socket = self.path("agent.sock");
        let (socket, root) = (socket.display(), self.path("m"));
        let text = format!(
            "[node]\nmount_root = \"{}\"\n[guard]\nsocket = \"{socket}\"\n{more}",
            root.display()
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path("bundle/rootfs")
    }

    /// The container asks for these, and has hooks.
    pub(crate) fn asks(&mut self, mounts: &[Asked<'_>]) -> &mut Self {
        self.config["annotations"] = json!(annotations(mounts));
        let hook = |stage: &str| {
            json!([{
                "path": PROGRAM,
                "args": ["actor-volumes", "hook", stage],
                "env": [
                    format!("ACTOR_VOLUMES_CONFIG={}", self.path("config.toml").display()),
                    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                ],
                "timeout": 60,
            }])
        };
        self.config["hooks"] =
            json!({"createRuntime": hook("createRuntime"), "poststop": hook("poststop")});
        self
    }

    /// What the container does, in a shell.
    pub(crate) fn does(&mut self, script: &str) -> &mut Self {
        self.config["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
        self
    }

    /// The container has a user namespace of its own.
    pub(crate) fn maps_users(&mut self) -> &mut Self {
        let map = json!([{"containerID": 0, "hostID": SHIFT, "size": 65536}]);
        let linux = &mut self.config["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
        fs::set_permissions(self.path("bundle"), fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(self.rootfs()).unwrap() {
            chown(entry.unwrap().path(), Some(SHIFT), Some(SHIFT)).unwrap();
        }
        chown(self.rootfs(), Some(SHIFT), Some(SHIFT)).unwrap();
        self
    }

    pub(crate) fn write(&self) {
        fs::write(self.path("bundle/config.json"), self.config.to_string()).unwrap();
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self, runtime: &Runtime) -> Ran {
        self.run_where(runtime, "slave")
    }

    pub(crate) fn run_where(&self, runtime: &Runtime, propagation: &str) -> Ran {
        self.write();
        let id = self.new_id();
        let mut command = runtime.command_where(&self.path("state"), propagation);
        command.args(["run", "--bundle"]).arg(self.path("bundle"));
        let output = command.arg(&id).stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Ran {
            id,
            output,
            stdout,
            stderr,
        }
    }

    /// Begins to create the container.
    pub(crate) fn create(&self, runtime: &Runtime) -> (String, Child) {
        self.write();
        let id = self.new_id();
        let mut command = runtime.command(&self.path("state"));
        command
            .args(["create", "--bundle"])
            .arg(self.path("bundle"));
        let errors = fs::File::create(self.path("errors")).unwrap();
        // Not a pipe: the container would keep it open.
        let child = command
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn();
        (id, child.unwrap())
    }

    /// What the runtime does with a container that there is.
    pub(crate) fn runtime(&self, runtime: &Runtime, words: &[&str]) -> Output {
        let mut command: Command = runtime.command(&self.path("state"));
        command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Nothing of this place is mounted on the host, but what is published.
    pub(crate) fn is_clean(&self) {
        let below = |m: &mountinfo::Mount| {
            m.mount_point.starts_with(self.dir.path()) && !m.mount_point.starts_with(self.path("m"))
        };
        let left: Vec<_> = mountinfo::own()
            .unwrap()
            .into_iter()
            .filter(below)
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Nothing runs in a container of this place, and nobody has its volumes.
    pub(crate) fn until_nobody_has_it(&self) {
        let end = Instant::now() + SOON;
        while let Some(pid) = self.holder() {
            assert!(Instant::now() < end, "process {pid} has it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn new_id(&self) -> String {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("avh-{}-{n}", std::process::id());
        self.made.lock().unwrap().push(id.clone());
        id
    }

    /// Whatever runs in a container of this place is killed.
    pub(crate) fn end(&self) {
        while let Some(pid) = self.holder() {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn holder(&self) -> Option<String> {
        let rootfs = self.rootfs().canonicalize().unwrap();
        let volumes = self.path("volumes");
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.unwrap().file_name().into_string().unwrap();
            pid.parse::<u32>().ok()?;
            let proc = Path::new("/proc").join(&pid);
            if fs::read_link(proc.join("ns/mnt")).ok()? == own {
                return None;
            }
            let table = fs::read(proc.join("mountinfo")).ok()?;
            let holds = mountinfo::parse(&table).iter().any(|m| {
                let root = &m.identity.root;
                // What the host has published reaches namespaces that follow it.
                let of_host = m.mount_point.starts_with(self.path("m"));
                (root.starts_with(&rootfs) || root.starts_with(&volumes)) && !of_host
            });
            holds.then_some(pid)
        })
    }
}

impl Drop for Place {
    /// A runtime that was killed has left the control groups of its containers.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end();
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten() {
            let hierarchy = hierarchy.unwrap().path();
            for id in self.made.lock().unwrap().iter() {
                // Of most there is none any more.
                let _ = fs::remove_dir(hierarchy.join(id));
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What became of a container.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) id: String,
    pub(crate) output: Output,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// It ran, and said this.
    pub(crate) fn said(&self, wanted: &str) {
        assert!(self.output.status.success(), "{self:?}");
        assert_eq!(self.stdout.trim_end(), wanted, "{}", self.stderr);
    }

    /// It was not made, for this reason.
    pub(crate) fn is_refused(&self, why: &str) {
        assert!(!self.output.status.success(), "{self:?}");
        assert_eq!(self.stdout, "", "nothing ran");
        assert!(self.stderr.contains(why), "{why:?} in {}", self.stderr);
    }
}

/// A container as `runc spec` has it, with little in it.
fn spec() -> Value {
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "network"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    let all = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_CHOWN"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/busybox", "true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": all, "effective": all, "permitted": all},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": namespaces},
    })
}
