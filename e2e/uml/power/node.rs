// SPDX-License-Identifier: Apache-2.0
//! The node in the machine: containerd, the embedded driver and our daemon.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    NAMESPACE, RUN,
    machine::{Disks, Machine, path, work},
};

const DRIVER: &str = "local.actor-volumes.dev";

/// Long enough for anything that works, in a kernel that is a process.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) machine: Machine,
    program: String,
}

impl Node {
    /// Boots, and brings up all but our daemon.
    pub(crate) fn boot(disks: &Disks) -> Self {
        let mut node = Self {
            machine: Machine::boot(disks),
            program: path("AV_MORTAL").display().to_string(),
        };
        let containerd = path("AV_CONTAINERD").display().to_string();
        let toml = work().join("containerd.toml").display().to_string();
        node.machine.sh(&format!(
            "mkdir -p {RUN}/logs {RUN}/pods /d/containerd && cd / && \
             export PATH={containerd}:$PATH && \
             {{ setsid containerd --config {toml} > {RUN}/logs/containerd 2>&1 < /dev/null & }} && \
             {{ setsid {} local-driver --name {DRIVER} --socket {RUN}/csi.sock --root /d/backend \
             > {RUN}/logs/driver 2>&1 < /dev/null & }}",
            node.program
        ));
        let ready = json!({ "do": "connect", "seconds": 60 });
        if let Err(why) = node.machine.ask(&ready) {
            panic!("{why}\n{}", node.logs());
        }
        node
    }

    /// Boots with everything.
    pub(crate) fn up(disks: &Disks) -> Self {
        let mut node = Self::boot(disks);
        node.serve();
        node
    }

    /// Starts our daemon and waits until the runtime let it in.
    pub(crate) fn serve(&mut self) {
        self.start();
        self.until("actor-volumes serve answers", |node| {
            node.av("actor ls").is_ok()
        });
        self.until("the runtime let the plugin in", |node| {
            let line = format!("grep -c 'actor-volumes.*connected' {RUN}/logs/containerd");
            let (_, count) = node.machine.try_sh(&line);
            let (_, starts) = node.machine.try_sh(&format!("wc -l < {RUN}/starts"));
            count.parse::<u32>().unwrap_or(0) >= starts.trim().parse().unwrap_or(1)
        });
    }

    /// Starts our daemon and waits for nothing.
    pub(crate) fn start(&mut self) {
        let program = &self.program;
        self.machine.sh(&format!(
            "cat > {RUN}/config.toml <<'END'\n\
             [node]\nname = \"node-a\"\nstate_dir = \"/s/av\"\nrun_dir = \"{RUN}/av\"\n\
             mount_root = \"/d/m\"\n\
             member_grace_ms = 1000\nsweep_interval_s = 1\n\
             [runtime]\nnri_socket = \"{RUN}/nri.sock\"\ncri_socket = \"{RUN}/c.sock\"\n\
             [log]\nfilter = \"debug,h2=info,hyper=info,tower=info\"\n\
             [[driver]]\nname = \"{DRIVER}\"\nendpoint = \"unix://{RUN}/csi.sock\"\n\
             END\n\
             echo start >> {RUN}/starts; \
             cd / && {{ ACTOR_VOLUMES_CRASH_AT={RUN}/crash setsid {program} serve --config {RUN}/config.toml \
             >> {RUN}/logs/serve 2>&1 < /dev/null & echo $! > {RUN}/serve.pid; }}"
        ));
    }

    /// Lets our daemon die when it comes to this crash point.
    pub(crate) fn arm(&mut self, crash: &str) {
        self.machine.sh(&format!("printf {crash} > {RUN}/crash"));
    }

    /// Whether our daemon runs.
    pub(crate) fn serves(&mut self) -> bool {
        let line = format!("p=$(cat {RUN}/serve.pid); grep -qz serve /proc/$p/cmdline");
        self.machine.try_sh(&line).0 == 0
    }

    /// Ends our daemon as a crash would.
    pub(crate) fn kill_serve(&mut self) {
        let line = format!("kill -9 $(cat {RUN}/serve.pid)");
        self.machine.sh(&line);
        self.until("the daemon is gone", |node| !node.serves());
        self.machine.sh(&format!(
            "grep -c 'actor-volumes.*connected' {RUN}/logs/containerd \
             | {{ read n; yes | head -n $n > {RUN}/starts; }}"
        ));
    }

    /// Runs `actor-volumes` with these words: what it prints, or why it failed.
    pub(crate) fn av(&mut self, words: &str) -> Result<String, String> {
        let line = format!(
            "ACTOR_VOLUMES_SOCKET={RUN}/av/actor-volumes.sock {} {words}",
            self.program
        );
        match self.machine.try_sh(&line) {
            (0, out) => Ok(out),
            (_, out) => Err(out),
        }
    }

    /// The same, where it must succeed.
    pub(crate) fn must(&mut self, words: &str) -> String {
        self.av(words)
            .unwrap_or_else(|e| panic!("actor-volumes {words}: {e}\n{}", self.logs()))
    }

    /// A volume as `volume show` tells it, of an actor that has one.
    pub(crate) fn volume(&mut self, actor: &str) -> Value {
        let list = self.must("volume ls -o json");
        let list: Vec<Value> = serde_json::from_str(&list).expect("ls -o json prints a list");
        let of = |v: &&Value| v.to_string().contains(&format!("{NAMESPACE}/{actor}"));
        let uid = list.iter().find(of).unwrap_or_else(|| panic!("{list:?}"))["uid"].clone();
        let uid = uid.as_str().expect("a uid is text").to_owned();
        let text = self.must(&format!("volume show {uid} -o json"));
        serde_json::from_str(&text).expect("show -o json prints an object")
    }

    /// Creates an actor with one volume.
    pub(crate) fn create(&mut self, actor: &str) {
        self.must(&format!(
            "actor create {NAMESPACE}/{actor} --template one --wait"
        ));
    }

    /// Resumes an actor; the platform keeps the annotations on disk.
    pub(crate) fn resume(&mut self, actor: &str) {
        let file = format!("/d/{actor}.json");
        self.must(&format!(
            "actor resume {NAMESPACE}/{actor} 2> {RUN}/resume > {file} || {{ cat {RUN}/resume; false; }}"
        ));
        self.machine.sh(&format!("sync {file} /d"));
    }

    pub(crate) fn suspend(&mut self, actor: &str) {
        self.must(&format!(
            "actor suspend {NAMESPACE}/{actor} --wait --timeout 60s"
        ));
    }

    pub(crate) fn delete(&mut self, actor: &str) {
        self.must(&format!(
            "actor delete {NAMESPACE}/{actor} --wait --timeout 60s"
        ));
    }

    /// A pod with the actor's last annotations: what it was answered, also where
    /// it was refused.
    pub(crate) fn try_pod(
        &mut self,
        actor: &str,
        pod: &str,
        line: &str,
        seconds: u64,
    ) -> Result<String, String> {
        let annotations = format!("/d/{actor}.json");
        self.machine
            .ask(&json!({ "do": "pod", "name": pod, "annotations": annotations }))?;
        let container = self
            .machine
            .ask(&json!({ "do": "container", "pod": pod, "line": line, "seconds": seconds }))?;
        Ok(container.as_str().unwrap_or_default().to_owned())
    }

    /// The same, where it must run: the id of its container.
    pub(crate) fn pod(&mut self, actor: &str, pod: &str, line: &str) -> String {
        self.try_pod(actor, pod, line, 60)
            .unwrap_or_else(|e| panic!("pod {pod}: {e}\n{}", self.logs()))
    }

    pub(crate) fn exec(&mut self, container: &str, line: &str) -> String {
        let done = self
            .machine
            .ask(&json!({ "do": "exec", "container": container, "line": line }));
        let done = done.unwrap_or_else(|e| panic!("`{line}`: {e}"));
        assert_eq!(done["code"], 0, "`{line}`: {done}");
        done["out"]
            .as_str()
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    /// Removes a pod of this boot by its name, or any by its id.
    pub(crate) fn remove(&mut self, pod: &str) {
        let removed = self.machine.ask(&json!({ "do": "remove", "pod": pod }));
        removed.unwrap_or_else(|e| panic!("removing {pod}: {e}"));
    }

    /// Removes what the runtime remembers of earlier boots, as a kubelet does.
    pub(crate) fn remove_all_pods(&mut self) {
        let pods = self.machine.ask(&json!({ "do": "pods" }));
        let pods: Vec<String> =
            serde_json::from_value(pods.expect("the runtime lists pods")).expect("a list of ids");
        for pod in pods {
            self.remove(&pod);
        }
    }

    /// What is mounted below the mount root.
    pub(crate) fn mounts(&mut self) -> Vec<String> {
        let (_, out) = self.machine.try_sh("grep ' /d/m/' /proc/self/mountinfo");
        out.lines().map(str::to_owned).collect()
    }

    /// Ends an actor, and with it all that the node holds.
    pub(crate) fn finish(&mut self, actor: &str) {
        self.remove_all_pods();
        self.suspend(actor);
        self.delete(actor);
        let mounts = self.mounts();
        assert!(mounts.is_empty(), "{mounts:?}");
        let left = self
            .machine
            .sh("ls -A /d/m /s/av/records /d/backend/volumes /d/backend/trash | grep -v : | grep . || true");
        assert_eq!(left, "", "left behind");
    }

    /// Waits until `look` holds.
    pub(crate) fn until(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + SOON;
        while !look(self) {
            assert!(
                Instant::now() < end,
                "not within {SOON:?}: {what}\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The ends of the logs, for the report of a test that failed.
    pub(crate) fn logs(&mut self) -> String {
        let line = format!("cd {RUN}/logs && tail -n 15 containerd driver; tail -n 40 serve");
        self.machine.try_sh(&line).1
    }
}

/// Disks with the images, the class and the template on them, shut down well.
pub(crate) fn base() -> Disks {
    let at = work().join("n");
    let configured = Command::new(path("AV_NODE"))
        .env("AV_NRI_REQUEST_TIMEOUT", "20s")
        .arg("config")
        .arg(&at)
        .arg("1.7")
        .status();
    assert!(
        configured.expect("node.sh runs").success(),
        "node.sh config"
    );
    let toml = fs::read_to_string(at.join("containerd.toml")).expect("written by node.sh");
    let toml = toml
        .replace(&format!("{}/root", at.display()), "/d/containerd")
        .replace(&at.display().to_string(), RUN);
    fs::write(work().join("containerd.toml"), toml).expect("the work directory is ours");

    let disks = Disks::make("base");
    let mut node = Node::up(&disks);
    let images = work().join("images");
    let ctr = path("AV_CONTAINERD").join("ctr");
    for image in ["pause", "busybox"] {
        node.machine.sh(&format!(
            "{} -a {RUN}/c.sock -n k8s.io images import {}/{image}.tar",
            ctr.display(),
            images.display()
        ));
    }
    node.machine.sh(&format!(
        "cat > {RUN}/class.yaml <<'END'\n\
         apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: fast\n\
         provisioner: {DRIVER}\nEND\n\
         cat > {RUN}/template.yaml <<'END'\n{TEMPLATE}END"
    ));
    node.must(&format!("storageclass apply -f {RUN}/class.yaml"));
    node.must(&format!("template apply -f {RUN}/template.yaml"));
    node.machine.shut_down();
    disks
}

const TEMPLATE: &str = "\
kind: ActorTemplate
metadata:
  name: one
spec:
  containers:
  - image: my-agent-image:v1.2.3
    volumeMounts:
    - name: vol1
      mountPath: /my-data
  volumes:
  - name: vol1
    externalVolumeTemplate:
      capacity: 64Mi
      storageClassName: fast
";
