// SPDX-License-Identifier: Apache-2.0
//! Plain bundles, on a node whose daemon knows of no runtime.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use testkit::cri::Annotations;

use super::{
    Cell, Door, Place, Row, begin,
    ground::{Ground, all_of, command},
    story::{self, Outcome},
    table,
};
use crate::{
    canary,
    cases::prepare,
    daemon::{until, until_true},
    hooks::hooks,
    node::{Node, PATIENCE, SOON},
    setup::{actor_volumes, setup},
};

/// Starts a runtime without the host's root. What is mounted on the host goes on to reach
/// it.
const ROOTLESS: [&str; 5] = [
    "unshare",
    "--map-root-user",
    "--mount",
    "--propagation",
    "slave",
];

/// Of this user of the host a container's own root is made.
const FIRST: u32 = 200_000;

/// The cells of a runtime with plain bundles.
pub(super) fn cells(node: &mut Node, row: Row, place: Place) {
    prepare(node);
    begin(node, place, row);
    let possible = story::can_be_told(node, row, &mut Bundles::new(node, row, place, None));
    for door in [Door::Hook, Door::Wrapper, Door::Inject] {
        let cell = Cell { place, row, door };
        let outcome = match &possible {
            Err(why) => Outcome::Impossible(why.clone()),
            Ok(()) => {
                let mut bundles = Bundles::new(node, row, place, Some(door));
                story::tell(node, &mut bundles, cell)
            }
        };
        table::cell(cell, outcome);
    }
}

/// Bundles of one runtime.
pub(super) struct Bundles {
    row: Row,
    door: Option<Door>,
    dir: PathBuf,
    program: PathBuf,
    cgroups: String,
    /// Users of the host that are a container's own; none: it has the host's.
    users_from: Option<u32>,
    rootless: bool,
}

impl Bundles {
    pub(super) fn new(node: &Node, row: Row, place: Place, door: Option<Door>) -> Self {
        let name = door.map_or("bare".to_owned(), |d| d.to_string().replace(' ', "-"));
        let dir = node.dir.join("bundles").join(name);
        fs::create_dir_all(&dir).expect("the node's directory takes directories");
        let real = setup().runtime(row.tool, &node.dir);
        let real = real.expect("the case needs it");
        let mut program = real.clone();
        if door == Some(Door::Wrapper) {
            program = dir.join("actor-volumes-runtime");
            if !program.exists() {
                symlink(actor_volumes().get_program(), &program).expect("a new directory");
            }
        }
        let text = format!(
            "[guard]\nruntime = \"{}\"\nsocket = \"{}/run/agent.sock\"\n",
            real.display(),
            node.dir.display()
        );
        fs::write(dir.join("config.toml"), text).expect("it takes files");
        Self {
            row,
            door,
            dir,
            program,
            cgroups: node.cgroup_parent.clone(),
            users_from: (place == Place::Users).then_some(FIRST),
            rootless: place == Place::Rootless,
        }
    }

    fn bundle(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Writes the bundle of a container.
    fn write(&self, id: &str, annotations: &Annotations, line: &str) {
        let bundle = self.bundle(id);
        // From the last time.
        let _ = fs::remove_file(bundle.join("config.json"));
        root(&bundle.join("rootfs"), self.users_from);
        let mut config = config(annotations, line, &format!("{}/{id}", self.cgroups));
        if let Some(first) = self.users_from {
            let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
            let linux = &mut config["linux"];
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
            let namespaces = linux["namespaces"].as_array_mut().expect("it is a list");
            namespaces.push(json!({"type": "user"}));
        }
        if self.door == Some(Door::Hook) {
            hooked(
                &mut config,
                self.row,
                &self.dir.join("config.toml"),
                &self.hook_errors(),
            );
        }
        fs::write(bundle.join("config.json"), config.to_string()).expect("it takes files");
    }

    fn hook_errors(&self) -> PathBuf {
        self.dir.join("hook-errors")
    }

    /// Runs the runtime; what it said if it failed. What it starts has its output, and
    /// so that is a file.
    fn run(&self, arguments: &[&str], out: &Path) -> Result<(), String> {
        let errors = self.dir.join("errors");
        let file = |path: &Path| File::create(path).expect("the node takes files");
        let status = Command::new("timeout")
            .args(["--signal", "KILL", PATIENCE])
            .args(if self.rootless { &ROOTLESS[..] } else { &[] })
            .arg(&self.program)
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(arguments)
            .env("ACTOR_VOLUMES_CONFIG", self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(file(out))
            .stderr(file(&errors))
            .status()
            .expect("timeout runs");
        let of_hook = fs::read(self.hook_errors()).unwrap_or_default();
        let said = [fs::read(&errors).unwrap_or_default(), of_hook].concat();
        canary::said(&self.dir, &arguments.join(" "), &said);
        if status.success() {
            return Ok(());
        }
        Err(format!("{status}: {}", String::from_utf8_lossy(&said)))
    }

    fn must(&self, arguments: &[&str], out: &Path) {
        let run = self.run(arguments, out);
        run.unwrap_or_else(|e| panic!("{} {arguments:?}: {e}", self.program.display()));
    }

    fn is_stopped(&self, id: &str) -> bool {
        let out = self.dir.join("out");
        self.must(&["state", id], &out);
        let state = fs::read(&out).expect("it was written");
        let state: Value = serde_json::from_slice(&state).expect("a state is JSON");
        state["status"] == "stopped"
    }

    /// `actor-volumes bundle inject|release`.
    fn ours(&self, node: &Node, verb: &str, id: &str) -> Result<(), String> {
        let named = ["--runtime".as_ref(), self.program.as_os_str()];
        let output = Command::new("timeout")
            .args(["--signal", "KILL", PATIENCE])
            .arg(actor_volumes().get_program())
            .args(["bundle", verb])
            .arg(self.bundle(id))
            .args(if verb == "inject" { &named[..] } else { &[] })
            .env("ACTOR_VOLUMES_CONFIG", self.dir.join("config.toml"))
            .output()
            .expect("our binary runs");
        let said = [&output.stdout[..], &output.stderr].concat();
        canary::said(&node.dir, verb, &said);
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        Err(format!(
            "actor-volumes: {}",
            said.trim_start_matches("error: ")
        ))
    }
}

impl Ground for Bundles {
    fn resume(&self, node: &Node, actor: &str) -> Annotations {
        node.resume_with(actor, &["--host"])
    }

    fn start(
        &mut self,
        node: &mut Node,
        id: &str,
        annotations: &Annotations,
        line: &str,
    ) -> Result<(), String> {
        self.write(id, annotations, line);
        if self.door == Some(Door::Inject) {
            self.ours(node, "inject", id)?;
        }
        let bundle = self.bundle(id).display().to_string();
        let out = self.bundle(id).join("out");
        let made = self
            .run(&["create", "--bundle", &bundle, id], &out)
            .and_then(|()| self.run(&["start", id], &self.dir.join("out")));
        if made.is_err() {
            // Not every runtime leaves nothing of what it did not make.
            let _ = self.run(&["delete", "--force", id], &self.dir.join("out"));
            if self.door == Some(Door::Inject) {
                self.ours(node, "release", id).expect("it is released");
            }
        }
        made
    }

    fn said(&self, _: &Node, id: &str) -> String {
        let out = self.bundle(id).join("out");
        until("the container has done its part", SOON, || {
            all_of(&fs::read_to_string(&out).ok()?)
        })
    }

    fn end(&mut self, node: &Node, id: &str) {
        let out = self.dir.join("out");
        self.must(&["kill", id, "KILL"], &out);
        until_true("the container has ended", SOON, || self.is_stopped(id));
        self.must(&["delete", id], &out);
        if self.door == Some(Door::Inject) {
            self.ours(node, "release", id).expect("it is released");
        }
    }
}

/// A root file system with busybox alone, which belongs to this user.
pub(super) fn root(at: &Path, owner: Option<u32>) {
    let busybox = setup().tool("busybox-static").expect("every suite has it");
    for name in ["bin", "dev", "proc"] {
        fs::create_dir_all(at.join(name)).expect("the node takes directories");
    }
    let program = at.join("bin/busybox");
    if !program.exists() {
        fs::copy(busybox.join("busybox"), program).expect("it is copied");
    }
    if owner.is_some() {
        std::os::unix::fs::chown(at, owner, owner).expect("we are root");
    }
}

/// Gives a container our hooks.
pub(super) fn hooked(config: &mut Value, row: Row, settings: &Path, errors: &Path) {
    config["hooks"] = hooks(settings);
    if row.tool.starts_with("crun") {
        // Else it is silent about why a hook has failed.
        config["annotations"]["run.oci.hooks.stderr"] = json!(errors);
        // Of another container.
        let _ = fs::remove_file(errors);
    }
}

/// A container that is made of a bundle.
pub(super) fn config(annotations: &Annotations, line: &str, cgroups: &str) -> Value {
    let namespaces = ["pid", "ipc", "uts", "mount", "network"];
    let namespaces = namespaces.map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": command(line),
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "annotations": annotations,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {"namespaces": namespaces, "cgroupsPath": cgroups},
    })
}
