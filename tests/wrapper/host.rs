// SPDX-License-Identifier: Apache-2.0
//! A host with `serve` and nothing else of ours, neither NRI nor a CRI.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use actor_volumes::host::mountinfo;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than this nothing may take.
const AT_LAST: Duration = Duration::from_secs(60);

/// Waits until it finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + AT_LAST;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The same, until it is so.
pub(crate) fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

pub(crate) struct Host {
    dir: TempDir,
    serve: Child,
}

impl Host {
    /// With the template `t` of one volume at `/my-data`.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// It does not look for containers that are gone.
    pub(crate) fn that_is_told() -> Self {
        Self::launch(3600, "")
    }

    /// With this at the end of its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::launch(1, more)
    }

    fn launch(sweep_s: u32, more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("avw").tempdir().unwrap();
        let at = dir.path().display();
        let text = format!(
            "[node]\nname = \"n\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nmount_root = \"{at}/m\"\nsweep_interval_s = {sweep_s}\n\
             [runtime]\nnri_socket = \"\"\ncri_socket = \"\"\n\
             [local_driver]\nroot = \"{at}/volumes\"\n{more}"
        );
        fs::write(dir.path().join("config.toml"), text).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let serve = Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
            .args(["serve", "--config"])
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let host = Self { dir, serve };
        until_true("the node is ready", || {
            let listed = host.try_av(&["node", "ls"]);
            String::from_utf8_lossy(&listed.stdout).contains("Ready")
        });
        host.apply(
            "storageclass",
            "kind: StorageClass\nmetadata: {name: fast}\nprovisioner: local.actor-volumes.dev\n",
        );
        host.template("t", &[("vol1", "/my-data")]);
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn try_av(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
            .env("ACTOR_VOLUMES_SOCKET", self.path("run/actor-volumes.sock"))
            .env("ACTOR_VOLUMES_CONFIG", self.path("config.toml"))
            .args(words)
            .output()
            .unwrap()
    }

    /// A verb that succeeds; what it prints.
    pub(crate) fn av(&self, words: &[&str]) -> String {
        let done = self.try_av(words);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {error}\n{}", self.log());
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) fn apply(&self, noun: &str, text: &str) {
        let file = self.path("applied.yaml");
        fs::write(&file, text).unwrap();
        self.av(&[noun, "apply", "-f", &file.display().to_string()]);
    }

    /// A template with these volumes: their names, and where they are mounted.
    pub(crate) fn template(&self, name: &str, volumes: &[(&str, &str)]) {
        let mut text = format!(
            "kind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: agent\n    volumeMounts:\n"
        );
        for (volume, path) in volumes {
            text.push_str(&format!("    - {{name: {volume}, mountPath: {path}}}\n"));
        }
        text.push_str("  volumes:\n");
        for (volume, _) in volumes {
            text.push_str(&format!(
                "  - name: {volume}\n    externalVolumeTemplate: {{capacity: 1Mi, storageClassName: fast}}\n"
            ));
        }
        self.apply("template", &text);
    }

    /// A new actor, resumed for a container that no pod holds: its annotations.
    pub(crate) fn actor(&self, name: &str, template: &str) -> BTreeMap<String, String> {
        let name = format!("agents/{name}");
        self.av(&["actor", "create", &name, "--template", template, "--wait"]);
        self.resume(&name)
    }

    pub(crate) fn resume(&self, name: &str) -> BTreeMap<String, String> {
        let printed = self.av(&["actor", "resume", name, "--host"]);
        serde_json::from_str(&printed).unwrap()
    }

    /// Its volumes are released, or this fails.
    pub(crate) fn suspend(&self, name: &str) {
        self.av(&["actor", "suspend", &format!("agents/{name}"), "--wait"]);
    }

    /// What is published below the mount root now.
    pub(crate) fn published(&self) -> Vec<PathBuf> {
        let root = self.path("m");
        let all = mountinfo::own().unwrap().into_iter();
        all.map(|m| m.mount_point)
            .filter(|at| at.starts_with(&root) && at != &root)
            .collect()
    }

    /// Whatever runs of a bundle here, or of its runtime, after a failure.
    fn end_containers(&self) {
        let read = |pid: u32, name: &str| fs::read(format!("/proc/{pid}/{name}"));
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(std::process::id());
        let here = self.dir.path().as_os_str().as_encoded_bytes();
        let named = |bytes: &[u8]| bytes.windows(here.len()).any(|part| part == here);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| namespace(*pid) != own) {
            let files = ["cmdline", "mountinfo"].map(|name| read(pid, name).unwrap_or_default());
            if files.iter().any(|bytes| named(bytes)) {
                kill(pid);
            }
        }
    }

    /// Nothing is published any more, within the time of a sweep or two.
    pub(crate) fn until_nothing_is_published(&self) {
        until_true("everything is unpublished", || self.published().is_empty());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
            self.end_containers();
        }
        let pid = Pid::from_child(&self.serve);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.serve.wait();
        for at in self.published().iter().rev() {
            let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// The directory with the programs of a tool of e2e/tools.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/tools/setup.sh");
    let told = Command::new(script)
        .args(["--path", name])
        .output()
        .unwrap();
    let path = String::from_utf8(told.stdout).unwrap();
    told.status.success().then(|| path.trim().into())
}
