// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve` between drivers that nobody here wrote and a runtime
//! that is testkit's: every driver call is real, no container runs.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    time::Duration,
};

use actor_volumes::proto::nri::{Container, PodSandbox};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use testkit::{
    nri::{Behaviour, PluginHandle, Runtime, Status, Version},
    runtime::ListedRuntime,
};

use crate::daemon::{Daemon, until, until_true};

/// The namespace whose unsigned annotations the node believes.
pub(crate) const NAMESPACE: &str = "agents";
/// The gRPC code for what may succeed later.
pub(crate) const UNAVAILABLE: i32 = 14;
/// Long enough for anything that works, also in a kernel that is a process.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// No verb takes so many seconds: one that hangs fails its test.
const PATIENCE: &str = "90";

/// A driver of the node.
pub(crate) struct Driver {
    /// What its GetPluginInfo answers.
    pub(crate) name: &'static str,
    /// Lines of its table in the configuration, but its name.
    pub(crate) table: String,
}

/// A node with our daemon on it.
pub(crate) struct House {
    pub(crate) dir: PathBuf,
    /// What the doubles live in.
    pub(crate) tokio: tokio::runtime::Runtime,
    nri: Runtime,
    cri: ListedRuntime,
    serve: Option<Daemon>,
    plugin: Option<PluginHandle>,
    drivers: Vec<Daemon>,
    metrics: SocketAddr,
    pods: u32,
}

/// A pod with one container, which has the volume at one path.
pub(crate) struct Pod {
    sandbox: PodSandbox,
    container: Container,
}

impl House {
    /// The doubles, in a new directory; [`House::start_serve`] comes next.
    pub(crate) fn new(dir: PathBuf, drivers: &[Driver]) -> Self {
        fs::create_dir_all(dir.join("logs")).expect("a directory of the test's own");
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let behaviour = Behaviour {
            request_timeout: Duration::from_secs(20),
            ..Behaviour::default()
        };
        let (nri, cri) = tokio.block_on(async {
            let cri = ListedRuntime::start(&dir.join("cri.sock")).await;
            (
                Runtime::listen_with(&dir, Version::CONTAINERD_2_3, behaviour),
                cri,
            )
        });
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let metrics = free.local_addr().expect("it is bound");
        let shown = dir.display();
        let mut text = format!(
            "[node]\nname = \"node-a\"\nstate_dir = \"{shown}/av\"\nrun_dir = \"{shown}/run\"\n\
             mount_root = \"{shown}/m\"\n\
             member_grace_ms = 1000\nsweep_interval_s = 1\n\
             [runtime]\nnri_socket = \"{nri}\"\ncri_socket = \"{shown}/cri.sock\"\n\
             [metrics]\nlisten = \"{metrics}\"\n\
             [log]\nfilter = \"debug,h2=info,hyper=info,tower=info\"\n",
            nri = nri.socket().display(),
        );
        for driver in drivers {
            text.push_str(&format!(
                "[[driver]]\nname = \"{}\"\n{}\n",
                driver.name, driver.table
            ));
        }
        fs::write(dir.join("config.toml"), text).expect("the directory takes files");
        Self {
            dir,
            tokio,
            nri,
            cri,
            serve: None,
            plugin: None,
            drivers: Vec::new(),
            metrics,
            pods: 0,
        }
    }

    /// Starts a driver and waits for its socket.
    pub(crate) fn start_driver(
        &mut self,
        name: &'static str,
        command: &mut Command,
        socket: &Path,
    ) {
        let daemon = Daemon::start(name, command, &self.log(name));
        self.drivers.push(daemon);
        until_true(&format!("{name} has its socket"), SOON, || socket.exists());
    }

    /// Starts our daemon and waits until it serves and the runtime knows it.
    pub(crate) fn start_serve(&mut self) {
        let mut command = actor_volumes();
        command
            .args(["serve", "--config"])
            .arg(self.dir.join("config.toml"))
            .env("RUST_BACKTRACE", "1");
        self.serve = Some(Daemon::start("serve", &mut command, &self.log("serve")));
        until("actor-volumes serve answers", SOON, || {
            self.av(&["actor", "ls"]).ok()
        });
        let plugin = self.tokio.block_on(async {
            tokio::time::timeout(SOON, self.nri.wait_plugin())
                .await
                .expect("our plugin registers with the runtime")
        });
        self.plugin = Some(plugin);
    }

    /// Ends our daemon as a crash would.
    pub(crate) fn kill_serve(&mut self) {
        self.serve = None;
        self.plugin = None;
    }

    /// Ends our daemon as it should end; fails where it does not.
    pub(crate) fn stop_serve(&mut self) {
        let serve = self.serve.as_mut().expect("it was started");
        let name = serve.name;
        let status = serve.terminate(SOON);
        let status = status.unwrap_or_else(|| panic!("{name} did not end at SIGTERM"));
        assert!(status.success(), "{name} ended with {status}");
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// The ends of all logs, for who reads of a failure.
    fn tails(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.dir.join("logs")).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            let log = fs::read(entry.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            text.push_str(&format!(
                "--- {}\n{}\n",
                entry.path().display(),
                tail.join("\n")
            ));
        }
        text
    }

    // --- our own command line

    /// Runs `actor-volumes`: its standard output, or what it said on standard error.
    pub(crate) fn av(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("timeout")
            .args(["--signal", "KILL", PATIENCE])
            .arg(actor_volumes().get_program())
            .env(
                "ACTOR_VOLUMES_SOCKET",
                self.dir.join("run/actor-volumes.sock"),
            )
            .args(arguments)
            .output()
            .expect("our binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{}: {}", output.status, text(&output.stderr)))
        }
    }

    /// The same, where it must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        self.av(arguments)
            .unwrap_or_else(|e| panic!("actor-volumes {}: {e}", arguments.join(" ")))
    }

    /// The same, as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.must(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text:?} is not JSON: {e}"))
    }

    /// A class of this driver, and a template with one volume of it, both of the
    /// name `kind`. `more` are further lines of the class.
    pub(crate) fn kind(&self, kind: &str, driver: &str, more: &str) {
        let class = format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: {kind}\n\
             provisioner: {driver}\n{more}"
        );
        let template = format!(
            "kind: ActorTemplate\nmetadata:\n  name: {kind}\nspec:\n  containers:\n  \
             - image: my-agent-image:v1.2.3\n    volumeMounts:\n    - name: vol1\n      \
             mountPath: /my-data\n  volumes:\n  - name: vol1\n    externalVolumeTemplate:\n      \
             capacity: 64Mi\n      storageClassName: {kind}\n"
        );
        for (what, manifest) in [("storageclass", class), ("template", template)] {
            let file = self.dir.join(format!("{what}.yaml"));
            fs::write(&file, manifest).expect("the directory takes files");
            self.must(&[what, "apply", "-f", &file.display().to_string()]);
        }
    }

    /// Makes an actor and waits until its volume is there.
    pub(crate) fn create(&self, actor: &str, kind: &str) {
        let name = qualified(actor);
        self.must(&["actor", "create", &name, "--template", kind, "--wait"]);
    }

    /// Resumes an actor: the annotations for its pod.
    pub(crate) fn resume(&self, actor: &str) -> BTreeMap<String, String> {
        let text = self.must(&["actor", "resume", &qualified(actor)]);
        serde_json::from_str(&text).expect("resume prints one JSON object")
    }

    /// Suspends an actor and waits until its volume is released.
    pub(crate) fn suspend(&self, actor: &str) {
        self.must(&["actor", "suspend", &qualified(actor), "--wait"]);
    }

    /// Deletes an actor and waits until its volume is gone.
    pub(crate) fn delete(&self, actor: &str) {
        self.must(&["actor", "delete", &qualified(actor), "--wait"]);
    }

    /// The volume of an actor, as `volume show` prints it.
    pub(crate) fn volume(&self, actor: &str) -> Value {
        let name = qualified(actor);
        let list = self.json(&["volume", "ls"]);
        let volumes = list.as_array().expect("volume ls prints a list");
        let volume = volumes.iter().find(|v| v["actor"] == *name);
        let uid = volume.unwrap_or_else(|| panic!("no volume of {name} in {list}"))["uid"].clone();
        self.json(&["volume", "show", uid.as_str().expect("a uid is text")])
    }

    // --- the runtime's side

    /// A sandbox with these annotations, as the runtime tells of it.
    pub(crate) fn run_pod(&mut self, annotations: &BTreeMap<String, String>) -> Pod {
        self.pods += 1;
        let id = format!("pod{}", self.pods);
        let sandbox = PodSandbox {
            id: id.clone(),
            name: id.clone(),
            uid: id.clone(),
            namespace: NAMESPACE.into(),
            annotations: annotations.clone().into_iter().collect(),
            ..PodSandbox::default()
        };
        let container = Container {
            id: format!("{id}-agent"),
            pod_sandbox_id: id.clone(),
            name: "agent".into(),
            ..Container::default()
        };
        self.cri.set(|lists| {
            lists.sandboxes.insert(id, true);
        });
        let told = self
            .tokio
            .block_on(self.plugin().run_pod_sandbox(sandbox.clone()));
        told.expect("the sandbox may run");
        Pod { sandbox, container }
    }

    /// Asks once for the pod's container: where its volume is on the host.
    pub(crate) fn try_create(&self, pod: &Pod) -> Result<PathBuf, Status> {
        let (sandbox, container) = (pod.sandbox.clone(), pod.container.clone());
        let adjusted = self
            .tokio
            .block_on(self.plugin().create_container(sandbox, container))?;
        assert!(
            self.plugin().is_connected(),
            "an answer within the deadline"
        );
        let mount = adjusted.mounts.iter().find(|m| m.destination == "/my-data");
        Ok(mount
            .expect("the volume is delivered")
            .source
            .clone()
            .into())
    }

    /// Stops and removes a pod.
    pub(crate) fn remove_pod(&self, pod: &Pod) {
        let (sandbox, container) = (&pod.sandbox, &pod.container);
        self.cri.set(|lists| {
            lists.sandboxes.remove(&sandbox.id);
        });
        let plugin = self.plugin();
        self.tokio
            .block_on(async {
                let (p, c) = (|| sandbox.clone(), || container.clone());
                plugin.stop_container(p(), c()).await?;
                plugin.remove_container(p(), c()).await?;
                plugin.stop_pod_sandbox(p()).await?;
                plugin.remove_pod_sandbox(p()).await
            })
            .unwrap_or_else(|e| panic!("what ended is never refused: {e:?}"));
    }

    fn plugin(&self) -> &PluginHandle {
        self.plugin.as_ref().expect("serve is started")
    }

    /// Mount points of volumes on the node.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").expect("a process has mounts");
        let root = format!(" {}/m/", self.dir.display());
        let below = |line: &&str| line.contains(&root);
        text.lines().filter(below).map(str::to_owned).collect()
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> std::io::Result<String> {
        let within = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.metrics, within)?;
        stream.set_read_timeout(Some(within))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// The actor's name as the command line wants it.
pub(crate) fn qualified(actor: &str) -> String {
    format!("{NAMESPACE}/{actor}")
}

/// Our binary.
pub(crate) fn actor_volumes() -> Command {
    Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
}

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A test on a node of its own.
pub(crate) type Test = (&'static str, fn(&mut House));

/// Runs the tests one after the other; each gets a node from `start`.
pub(crate) fn run(tests: &[Test], start: fn() -> House) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They measure times and share a machine.
    arguments.test_threads = Some(1);
    panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|p| *p = info.to_string());
    }));
    let trial = |(name, body): &Test| {
        let (name, body) = (*name, *body);
        Trial::test(name, move || one(start, body))
    };
    let conclusion = libtest_mimic::run(&arguments, tests.iter().map(trial).collect());
    for line in NOTES.lock().unwrap_or_else(|e| e.into_inner()).iter() {
        println!("    {line}");
    }
    conclusion.exit_code()
}

fn one(start: fn() -> House, body: fn(&mut House)) -> Result<(), Failed> {
    let mut house = guard(start)?;
    let run = guard(AssertUnwindSafe(|| {
        body(&mut house);
        house.stop_serve();
        assert_eq!(house.mounts(), [""; 0], "mounts are left");
    }));
    run.map_err(|message| Failed::from(format!("{message}\n{}", house.tails())))
}

/// What is told after the results.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a line for the end of the report.
pub(crate) fn note(line: String) {
    NOTES.lock().unwrap_or_else(|e| e.into_inner()).push(line);
}

/// Turns a panic into its message.
fn guard<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|_| PANIC.with_borrow(String::clone))
}
