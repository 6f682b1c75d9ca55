// SPDX-License-Identifier: Apache-2.0
//! One node: a containerd, a CSI driver and `actor-volumes serve`, in a
//! directory of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use testkit::cri::{Cri, Refusal};

use crate::{
    canary,
    daemon::{Daemon, until, until_true},
    driver::{self, Driver},
    hooks, leaks,
    setup::{actor_volumes, mortal, setup},
};

pub(crate) use crate::options::{Options, Runtime, guard_table};

/// The namespace whose unsigned annotations the node believes.
pub(crate) const NAMESPACE: &str = "agents";

/// Long enough for anything that works, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What the runtime gives a plugin for one request: twice containerd's own
/// default, because a machine that stalls for half a second must not fail a
/// case. We answer within 1.5 s under both.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// The guard's name: by it the program knows what it is.
pub(crate) const GUARD: &str = "actor-volumes-runtime";

/// The gRPC code for what may succeed later.
const UNAVAILABLE: i32 = 14;

/// No verb takes so many seconds: one that hangs fails its case.
pub(crate) const PATIENCE: &str = "90";

/// A running node.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    pub(crate) cri: Cri,
    pub(crate) options: Options,
    pub(crate) version: String,
    pub(crate) cgroup_parent: String,
    containerd: Daemon,
    driver: Option<Daemon>,
    serve: Option<Daemon>,
    pub(crate) pods: u32,
    pub(crate) metrics_port: u16,
    /// The last to be dropped: the daemons are gone by then.
    _place: Place,
}

impl Node {
    /// Brings everything up and waits until it is ready for pods.
    pub(crate) fn start(version: &str, options: Options) -> Self {
        let setup = setup();
        let dir = setup.new_dir();
        let number = dir.file_name().expect("made by new_dir").to_string_lossy();
        let place = Place {
            cgroup_parent: format!("{}-{number}", setup.cgroup),
            dir: dir.clone(),
        };
        for name in ["logs", "tmp"] {
            fs::create_dir(dir.join(name)).expect("the node's directory is new");
        }
        let guard = dir.join(GUARD);
        let mut configuring = setup.script("node.sh");
        let runc = setup.runtime(options.runc, &dir);
        configuring.env("AV_RUNC", runc.expect("every node has a runtime"));
        if options.hooks {
            configuring.env("AV_BASE_SPEC", hooks::base_spec(&dir, version));
        }
        if options.guard {
            let ours = actor_volumes();
            std::os::unix::fs::symlink(ours.get_program(), &guard)
                .expect("the node's directory is new");
            configuring.env("AV_GUARD", &guard);
        }
        // As docs/install.md says, where the runtime has it: our plugin is required then.
        let validated = version == "2.3" && options.runtime == Runtime::Plugin;
        run(configuring
            .env(
                "AV_NRI_REQUEST_TIMEOUT",
                format!("{}s", REQUEST_TIMEOUT.as_secs()),
            )
            .env("AV_VALIDATOR", if validated { "1" } else { "0" })
            .arg("config")
            .arg(&dir)
            .arg(version));
        let containerd = start_containerd(&dir, version);
        let cri = connect(&dir).with_cgroup_parent(&place.cgroup_parent);
        run(setup
            .script("node.sh")
            .arg("import")
            .args([&dir, Path::new(version), &setup.images]));
        let mut node = Self {
            dir,
            cri,
            options,
            version: version.to_owned(),
            cgroup_parent: place.cgroup_parent.clone(),
            containerd,
            driver: None,
            serve: None,
            pods: 0,
            metrics_port: canary::metrics_port(),
            _place: place,
        };
        if options.driver.is_some() {
            node.start_driver();
            node.write_config();
            node.start_serve();
        }
        node
    }

    fn write_config(&self) {
        let dir = self.dir.display();
        let Some(driver) = self.options.driver else {
            return;
        };
        let (mut nri, mut cri) = (String::new(), format!("{dir}/c.sock"));
        match self.options.runtime {
            Runtime::Plugin => nri = nri_socket(&self.dir).display().to_string(),
            Runtime::Cri => {}
            Runtime::Unknown => cri.clear(),
        }
        let text = format!(
            "{secrets}[metrics]\nlisten = \"127.0.0.1:{port}\"\n\
             [node]\nname = \"node-a\"\nstate_dir = \"{dir}/av\"\nrun_dir = \"{dir}/run\"\n\
             mount_root = \"{dir}/m\"\n\
             member_grace_ms = 1000\nsweep_interval_s = 1\n\
             [runtime]\nnri_socket = \"{nri}\"\ncri_socket = \"{cri}\"\n\
             [log]\nfilter = \"trace\"\n\
             [[driver]]\nname = \"{name}\"\nendpoint = \"unix://{dir}/csi.sock\"\n",
            secrets = canary::secrets(&self.dir),
            port = self.metrics_port,
            name = driver.name(),
        );
        let text = guard_table(self.options.runc, &self.dir) + &text;
        fs::write(self.dir.join("config.toml"), text).expect("the node's directory takes files");
    }

    /// Of which version its containerd is, as that says.
    pub(crate) fn version(&self) -> String {
        let version = self.cri.version().expect("it answers");
        version.trim_start_matches('v').to_owned()
    }

    /// Changes our configuration, for the next start.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let file = self.dir.join("config.toml");
        let text = fs::read_to_string(&file).expect("it was written");
        assert!(text.contains(from), "{text}");
        fs::write(file, text.replacen(from, to, 1)).expect("it can be written again");
    }

    /// Starts the CSI driver and waits for its socket.
    pub(crate) fn start_driver(&mut self) {
        let Some(driver) = self.options.driver else {
            return;
        };
        let socket = self.dir.join("csi.sock");
        // A driver that was killed leaves its socket, and not all replace it.
        let _ = fs::remove_file(&socket);
        let mut command = driver.command(&self.dir, &socket);
        let daemon = Daemon::start("csi-driver", &mut command, &self.log("csi-driver"));
        self.driver = Some(daemon);
        until_true("the CSI driver has its socket", SOON, || socket.exists());
    }

    /// Ends the CSI driver as a crash would.
    pub(crate) fn kill_driver(&mut self) {
        self.driver = None;
        let _ = fs::remove_file(self.dir.join("csi.sock"));
    }

    /// Starts our daemon and waits until it serves and the runtime knows it.
    pub(crate) fn start_serve(&mut self) {
        let before = self.connections();
        self.serve = Some(self.one_more_serve("serve"));
        until_true("actor-volumes serve answers", SOON, || {
            self.av(&["actor", "ls"]).is_ok()
        });
        self.wait_for_plugin(before);
    }

    /// A daemon of ours on the same directories, with a log of this name.
    pub(crate) fn one_more_serve(&self, name: &'static str) -> Daemon {
        self.serve_by(name, actor_volumes())
    }

    fn serve_by(&self, name: &'static str, mut command: Command) -> Daemon {
        command
            .args(["serve", "--config"])
            .arg(self.dir.join("config.toml"))
            .env("RUST_BACKTRACE", "1");
        Daemon::start(name, &mut command, &self.log(name))
    }

    /// In place of our daemon: one that dies at this point, once `on` comes to it.
    /// Then ours goes on.
    pub(crate) fn die_at(&mut self, point: &str, on: impl FnOnce(&mut Self)) {
        let at = self.dir.join("crash-at");
        let mut command = mortal();
        command.env("ACTOR_VOLUMES_CRASH_AT", &at);
        let next = self.serve_by("serve", command);
        self.replace_serve(next, drop);
        fs::write(at, point).expect("the node's directory takes files");
        on(self);
        let serve = self.serve.as_mut().expect("it was started");
        until_true(&format!("it dies at {point}"), SOON, || !serve.is_running());
        self.start_serve();
    }

    /// The daemon, if it is one, ends by this; the next one is in its place.
    pub(crate) fn replace_serve(&mut self, next: Daemon, end: impl FnOnce(Option<Daemon>)) {
        let before = self.connections();
        end(self.serve.take());
        self.serve_is(next, before);
    }

    /// The next daemon is in the place of one that has ended, before which the runtime
    /// had let in so many.
    pub(crate) fn serve_is(&mut self, next: Daemon, before: usize) {
        self.serve = Some(next);
        until_true("the next daemon answers", SOON, || {
            self.av(&["actor", "ls"]).is_ok()
        });
        self.wait_for_plugin(before);
    }

    /// Ends our daemon as a crash would.
    pub(crate) fn kill_serve(&mut self) {
        self.serve = None;
    }

    /// Stops our daemon where it is, without ending it, or lets it go on.
    pub(crate) fn freeze_serve(&mut self, frozen: bool) {
        let serve = self.serve.as_mut().expect("the daemon runs");
        serve.signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// The same of the CSI driver.
    pub(crate) fn freeze_driver(&mut self, frozen: bool) {
        let driver = self.driver.as_mut().expect("the driver runs");
        driver.signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Our daemon, to be ended.
    pub(crate) fn take_serve(&mut self) -> Daemon {
        self.serve.take().expect("the daemon runs")
    }

    /// The process of our daemon: the parent of the others.
    pub(crate) fn serve_pid(&self) -> u32 {
        self.serve.as_ref().expect("the daemon runs").pid()
    }

    /// Ends containerd as a crash would.
    pub(crate) fn kill_containerd(&mut self) {
        self.containerd.kill();
    }

    /// The same, and what it has started lives on.
    pub(crate) fn kill_containerd_alone(&mut self) {
        self.containerd.kill_alone();
    }

    /// Starts containerd again and waits until our plugin is back.
    pub(crate) fn restart_containerd(&mut self) {
        let before = self.connections();
        self.containerd = start_containerd(&self.dir, &self.version);
        self.cri = connect(&self.dir).with_cgroup_parent(&self.cgroup_parent);
        if self.serve.is_some() {
            self.wait_for_plugin(before);
        }
    }

    /// How often a plugin was let in so far, by the runtime's own log.
    pub(crate) fn connections(&self) -> usize {
        let text = fs::read(self.log("containerd")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let let_in = |line: &&str| line.contains("actor-volumes") && line.contains("connected");
        text.lines().filter(let_in).count()
    }

    pub(crate) fn wait_for_plugin(&self, before: usize) {
        if self.options.runtime != Runtime::Plugin {
            return;
        }
        until_true("the runtime let the plugin in", SOON, || {
            self.connections() > before
        });
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// What is mounted for volumes on the node, staged or published.
    pub(crate) fn held_mounts(&self) -> Vec<String> {
        let mounts = leaks::mounts_below(&self.dir.join("m"));
        mounts.iter().map(|m| m.display().to_string()).collect()
    }

    /// What of volumes the node still has: mounts, their directories, records. No
    /// deletion waits for the records to go.
    pub(crate) fn held(&self) -> Vec<String> {
        let mut held = leaks::entries(&self.dir.join("m"));
        let records = || leaks::entries(&self.dir.join("av/records"));
        let end = Instant::now() + SOON;
        while !records().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let records = records();
        held.extend(records.into_iter().map(|r| format!("record {r}")));
        held
    }

    /// Removes all pods and actors, stops everything, and says what was left.
    pub(crate) fn finish(mut self) -> Vec<String> {
        canary::interview(&self);
        let mut left = self.remove_everything();
        let mut stop = |daemon: Option<Daemon>, must_end_well: bool| {
            let Some(mut daemon) = daemon else { return };
            let name = daemon.name;
            if !daemon.is_running() {
                left.push(format!("{name} had ended before it was asked to"));
                return;
            }
            let status = daemon.terminate(SOON);
            if must_end_well && !status.is_some_and(|s| s.success()) {
                left.push(format!("{name} did not end well on SIGTERM: {status:?}"));
            }
        };
        stop(self.serve.take(), true);
        stop(self.driver.take(), false);
        if self.containerd.terminate(SOON).is_none() {
            left.push("containerd did not end on SIGTERM".to_owned());
        }
        left.extend(canary::found(&self.dir));
        left.extend(leaks::left_behind(&self.dir, &self.cgroup_parent));
        if !left.is_empty() {
            left.push(self.tails());
        }
        left
    }

    fn remove_everything(&self) -> Vec<String> {
        let mut left = Vec::new();
        for id in self.cri.pods().unwrap_or_default() {
            if let Err(e) = self
                .cri
                .stop_pod(&id)
                .and_then(|()| self.cri.remove_pod(&id))
            {
                left.push(format!("sandbox {id}: {e}"));
            }
        }
        let Some(driver) = self.options.driver else {
            return left;
        };
        let actors = self.actors().unwrap_or_else(|e| {
            left.push(format!("actor ls: {e}"));
            Vec::new()
        });
        for actor in actors {
            for verb in ["suspend", "delete"] {
                if let Err(e) = self.av(&["actor", verb, &actor, "--wait"]) {
                    left.push(format!("actor {verb} {actor}: {e}"));
                }
            }
        }
        left.extend(self.held().into_iter().map(|h| format!("on the node: {h}")));
        let backend = driver.volumes(&self.dir).into_iter();
        left.extend(backend.map(|v| format!("in the driver's backend: {v}")));
        if matches!(
            driver,
            Driver::Testkit | Driver::TestkitLoop | Driver::TestkitFuse
        ) {
            left.extend(driver::violations(&self.dir));
        }
        left
    }

    /// All actors, as `namespace/name`.
    fn actors(&self) -> Result<Vec<String>, String> {
        let text = self.av(&["actor", "ls", "-o", "json"])?;
        let list: Vec<serde_json::Value> =
            serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        let word = |v: &serde_json::Value| v.as_str().map(str::to_owned);
        let name = |a: &serde_json::Value| {
            Some(format!("{}/{}", word(&a["namespace"])?, word(&a["name"])?))
        };
        let names: Option<Vec<String>> = list.iter().map(name).collect();
        names.ok_or_else(|| format!("an actor without a name: {text}"))
    }

    /// The ends of all logs, for the report of a case that failed.
    pub(crate) fn tails(&self) -> String {
        let logs = self.dir.join("logs");
        let is_log = |name: &String| name.ends_with(".log");
        let names = leaks::entries(&logs).into_iter().filter(is_log);
        names.map(|name| tail(&logs.join(name), 40)).collect()
    }
}

/// What a node takes up on the machine. Ends by force what is left of it.
struct Place {
    dir: PathBuf,
    cgroup_parent: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(keep) = &setup().keep_logs {
            let to = keep.join(self.dir.file_name().unwrap_or_default());
            let logs = self.dir.join("logs");
            // Only for who looks for the reason of a failure: nothing depends on it.
            let _ = run_quietly(Command::new("cp").arg("-rT").arg(logs).arg(to));
        }
        leaks::sweep(&self.dir, &self.cgroup_parent);
        leaks::remove_cgroup_parent(&self.cgroup_parent);
    }
}

/// Whether the next try may succeed, as a kubelet is told: the plugin's code,
/// handed on by the runtime.
pub(crate) fn is_retryable(refusal: &Refusal) -> bool {
    refusal.code == UNAVAILABLE
}

/// The end of a log.
fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    format!("--- {}\n{}\n", log.display(), all[from..].join("\n"))
}

fn start_containerd(dir: &Path, version: &str) -> Daemon {
    let bin = setup()
        .tool(&format!("containerd-{version}"))
        .unwrap_or_else(|| panic!("containerd {version} was not set up"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(bin.join("containerd"));
    command
        .arg("--config")
        .arg(dir.join("containerd.toml"))
        .env("PATH", format!("{}:{path}", bin.display()))
        // The guard is started with the environment of containerd's shims.
        .env("ACTOR_VOLUMES_CONFIG", dir.join("config.toml"))
        .env("TMPDIR", dir.join("tmp"));
    Daemon::start("containerd", &mut command, &dir.join("logs/containerd.log"))
}

/// A client of the node's containerd, once it is ready.
pub(crate) fn connect(dir: &Path) -> Cri {
    let socket = dir.join("c.sock");
    let logs = dir.join("logs/pods");
    until("containerd is ready", SOON, || {
        let cri = Cri::connect(&socket, &logs).ok()?;
        cri.is_ready().then(|| canary::in_environment(cri))
    })
}

/// The NRI socket, as the runtime's own configuration has it.
pub(crate) fn nri_socket(dir: &Path) -> PathBuf {
    let text = fs::read_to_string(dir.join("containerd.toml")).expect("written by node.sh");
    let line = text
        .lines()
        .find(|l| l.trim_start().starts_with("socket_path"));
    let path = line.and_then(|l| l.split('"').nth(1).or_else(|| l.split('\'').nth(1)));
    path.expect("the configuration has NRI's socket_path")
        .into()
}

fn run(command: &mut Command) {
    if let Err(e) = run_quietly(command) {
        panic!("{command:?}: {e}");
    }
}

fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
