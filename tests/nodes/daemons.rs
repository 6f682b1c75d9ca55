// SPDX-License-Identifier: Apache-2.0
//! The daemons `control` and `node` on four machines, joined by cables that can be
//! pulled; the runtimes' NRI and CRI are doubles, the mounts are real.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use actor_volumes::{
    error::{Kind, Result},
    proto::{
        api,
        nri::{Container, PodSandbox},
    },
    rpc::Client,
};
use tempfile::TempDir;
use testkit::{
    csi::{Backend, CsiDriver, Options},
    nri::{PluginHandle, Runtime, Version},
    runtime::ListedRuntime,
};

use crate::{
    AT_LAST,
    authority::Authority,
    machine::{Machine, verb},
    site::NAMES,
};

struct Yard {
    dir: TempDir,
    driver: CsiDriver,
    control: Machine,
    nodes: BTreeMap<&'static str, Node>,
}

struct Node {
    machine: Machine,
    number: u8,
    listed: ListedRuntime,
    /// Must live as long as its plugins.
    _runtime: Runtime,
    plugin: PluginHandle,
}

impl Yard {
    async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let options = Options {
            attach: true,
            persist: false,
            ..Options::new(Backend::Bind {
                root: dir.path().join("backend"),
            })
        };
        let driver = CsiDriver::start_cluster(dir.path(), options, &NAMES).await;
        let authority = Authority::new();
        let mut control = Machine::start(dir.path().join("control"));
        authority.files(&control.dir, "control.example", &authority);
        let at = control.dir.display();
        control.run("control", &format!(
            "[node]\nname = \"control\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nmount_root = \"{at}/m\"\n[control]\nlisten = \"0.0.0.0:7443\"\n[control.tls]\nca = \"{at}/ca.crt\"\ncert = \"{at}/tls.crt\"\nkey = \"{at}/tls.key\"\n[[driver]]\nname = \"testkit.actor-volumes.dev\"\ncontroller_endpoint = \"{}/controller.sock\"\n",
            dir.path().display()
        ));
        let mut yard = Self {
            dir,
            driver,
            control,
            nodes: BTreeMap::new(),
        };
        for (number, name) in (1..).zip(NAMES) {
            let node = yard.node(number, name, &authority).await;
            yard.nodes.insert(name, node);
            yard.until_state(name, "Ready").await;
        }
        yard
    }

    async fn node(&self, number: u8, name: &'static str, authority: &Authority) -> Node {
        let mut machine = Machine::start(self.dir.path().join(name));
        self.control.connect(number, &machine);
        authority.files(&machine.dir, name, authority);
        let listed = ListedRuntime::start(&machine.dir.join("cri.sock")).await;
        let runtime = Runtime::listen(&machine.dir, Version::CONTAINERD_2_3);
        let (at, site) = (machine.dir.display(), self.dir.path().display());
        machine.run("node", &format!(
            "[node]\nname = \"{name}\"\nstate_dir = \"{at}/state\"\nrun_dir = \"{at}/run\"\nmount_root = \"{at}/m\"\nsweep_interval_s = 1\n[node.control]\nendpoint = \"https://10.77.{number}.1:7443\"\n[node.control.tls]\nca = \"{at}/ca.crt\"\ncert = \"{at}/tls.crt\"\nkey = \"{at}/tls.key\"\nserver_name = \"control.example\"\n[runtime]\nnri_socket = \"{at}/nri.sock\"\ncri_socket = \"{at}/cri.sock\"\n[[driver]]\nname = \"testkit.actor-volumes.dev\"\nendpoint = \"{site}/{name}.sock\"\n"
        ));
        let plugin = tokio::time::timeout(AT_LAST, runtime.wait_plugin()).await;
        let plugin = plugin.unwrap_or_else(|_| panic!("no plugin: {}", machine.log()));
        Node {
            machine,
            number,
            listed,
            _runtime: runtime,
            plugin,
        }
    }

    fn socket(&self) -> PathBuf {
        self.control.dir.join("run/actor-volumes.sock")
    }

    async fn client(&self) -> Client {
        let within = Duration::from_secs(100);
        Client::connect(&self.socket(), within).await.unwrap()
    }

    /// A verb on nodes that succeeds; what it prints.
    fn verb(&self, words: &str) -> String {
        let done = verb(&self.socket(), words);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words}: {error}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// One that is refused: its exit status and message.
    fn refused(&self, words: &str) -> (i32, String) {
        let done = verb(&self.socket(), words);
        assert!(!done.status.success(), "{words}");
        let error = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), error)
    }

    async fn until_state(&self, name: &str, state: &str) {
        let start = Instant::now();
        loop {
            let done = verb(&self.socket(), &format!("node show {name} -o json"));
            let shown: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
            if shown["state"] == state {
                return;
            }
            assert!(
                start.elapsed() < AT_LAST,
                "{name} is not {state}: {shown}\n{}",
                self.control.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn pull(&self, name: &str, cable: &str) {
        let number = self.nodes[name].number;
        self.control.ip(&format!("link set to-{number} {cable}"));
    }

    async fn resume(&self, node: &str, timeout_ms: u32) -> Result<BTreeMap<String, String>> {
        let request = api::ResumeActorRequest {
            namespace: "agents".into(),
            name: "a".into(),
            node: node.into(),
            timeout_ms,
            ..Default::default()
        };
        let resumed = self.client().await.resume_actor(request).await?;
        Ok(resumed.annotations.into_iter().collect())
    }

    async fn suspend(&self, timeout_ms: u32) -> Result<()> {
        let request = api::SuspendActorRequest {
            namespace: "agents".into(),
            name: "a".into(),
            wait: true,
            timeout_ms,
            ..Default::default()
        };
        self.client().await.suspend_actor(request).await.map(drop)
    }

    fn pod(&self, node: &str, id: &str, annotations: BTreeMap<String, String>) -> PodSandbox {
        self.nodes[node].listed.set(|lists| {
            lists.sandboxes.insert(id.into(), true);
        });
        PodSandbox {
            id: id.into(),
            name: format!("pod-{id}"),
            namespace: "agents".into(),
            annotations: annotations.into_iter().collect(),
            ..Default::default()
        }
    }

    /// One try: where the volume is, or why not.
    async fn try_container(&self, node: &str, pod: &PodSandbox) -> Result<PathBuf, String> {
        let plugin = &self.nodes[node].plugin;
        let _ = plugin.run_pod_sandbox(pod.clone()).await;
        let container = Container {
            id: format!("{}-c", pod.id),
            pod_sandbox_id: pod.id.clone(),
            name: "agent".into(),
            ..Default::default()
        };
        match plugin.create_container(pod.clone(), container).await {
            Ok(adjustment) => Ok(adjustment.mounts[0].source.clone().into()),
            Err(status) => Err(status.message),
        }
    }

    async fn container(&self, node: &str, pod: &PodSandbox) -> PathBuf {
        let start = Instant::now();
        loop {
            match self.try_container(node, pod).await {
                Ok(path) => return path,
                Err(error) => assert!(
                    start.elapsed() < AT_LAST,
                    "{error}\n{}",
                    self.nodes[node].machine.log()
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(&self, node: &str, pod: PodSandbox) {
        let node = &self.nodes[node];
        node.listed.set(|lists| {
            lists.sandboxes.remove(&pod.id);
        });
        let _ = node.plugin.stop_pod_sandbox(pod).await;
    }

    fn attached(&self) -> Vec<String> {
        self.driver.attached(&self.driver.volumes()[0])
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn daemons_on_machines_of_their_own_move_an_actor_and_survive_a_pulled_cable() {
    let yard = Yard::start().await;
    let file = yard.dir.path().join("set-up.yaml");
    let apply = |kind: &str, text: &str| {
        fs::write(&file, text).unwrap();
        yard.verb(&format!("{kind} apply -f {}", file.display()));
    };
    apply(
        "storageclass",
        "kind: StorageClass\nmetadata: {name: pool}\nprovisioner: testkit.actor-volumes.dev\n",
    );
    apply(
        "template",
        "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - {name: agent, volumeMounts: [{name: vol1, mountPath: /my-data}]}\n  volumes:\n  - {name: vol1, externalVolumeTemplate: {capacity: 1Mi, storageClassName: pool}}\n",
    );
    yard.verb("actor create agents/a --template t --wait");
    for (n, name) in NAMES.into_iter().enumerate() {
        let with = yard.resume(name, 60_000).await.unwrap();
        let pod = yard.pod(name, &format!("s{n}"), with);
        let path = yard.container(name, &pod).await;
        assert_eq!(yard.attached(), [name]);
        let written = fs::read_to_string(path.join("log")).unwrap_or_default();
        assert_eq!(written.lines().count(), n, "what was written before");
        fs::write(path.join("log"), format!("{written}{name}\n")).unwrap();
        yard.end(name, pod).await;
        yard.suspend(90_000).await.unwrap();
    }
    // The cable is pulled while the actor runs there.
    let old = yard.resume("node-a", 60_000).await.unwrap();
    let pod = yard.pod("node-a", "s-cut", old.clone());
    yard.container("node-a", &pod).await;
    yard.pull("node-a", "down");
    yard.until_state("node-a", "Away").await;
    let waits = yard.suspend(2_000).await.unwrap_err();
    assert!(waits.full_message().contains("is not connected since"));
    let waits = yard.resume("node-b", 2_000).await.unwrap_err();
    assert!(waits.full_message().contains("node fence node-a"));
    assert!(
        yard.verb("actor show agents/a")
            .contains("node fence node-a")
    );
    let (status, unsure) = yard.refused("node fence node-a");
    assert_eq!(status, i32::from(Kind::InvalidInput.exit_status()));
    assert!(unsure.contains("powered off"), "{unsure}");
    // Its container is killed, and the operator says so.
    yard.end("node-a", pod).await;
    let start = Instant::now();
    while yard.driver.count("NodeUnstageVolume") < 4 {
        assert!(start.elapsed() < AT_LAST, "the node did not release");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let fenced = yard.verb("node fence node-a --confirm-off --by somebody");
    assert!(fenced.contains("by somebody"), "{fenced}");
    yard.suspend(90_000).await.unwrap();
    let with = yard.resume("node-b", 60_000).await.unwrap();
    let pod = yard.pod("node-b", "s-b", with);
    let path = yard.container("node-b", &pod).await;
    let written = fs::read_to_string(path.join("log")).unwrap();
    assert_eq!(written.lines().count(), 3);
    // It is back, and the old word is over there.
    yard.pull("node-a", "up");
    yard.until_state("node-a", "Ready").await;
    let late = yard.pod("node-a", "s-late", old);
    let refused = yard.try_container("node-a", &late).await.unwrap_err();
    assert!(refused.contains("is over"), "{refused}");
    yard.end("node-b", pod).await;
    yard.suspend(90_000).await.unwrap();
    let violations = yard.driver.violations();
    assert!(violations.is_empty(), "{violations:?}");
    let listed = yard.verb("node ls");
    assert!(NAMES.iter().all(|name| listed.contains(name)), "{listed}");
}
