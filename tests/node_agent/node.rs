// SPDX-License-Identifier: Apache-2.0
//! A node with an agent, a driver and a runtime, for one volume.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actor_volumes::{
    api::annotation,
    cri::Cri,
    csi::{CreateVolume, Driver, DriverConfig, Registry, VolumeCapability},
    delivery::Needs,
    error::Result,
    keys::{KeyDir, TrustedKeys},
    model::{
        AccessMode, ActorUid, Audience, ContainerView, Generation, Grant, GrantActor, GrantDevice,
        GrantMount, GrantVolume, SandboxView, SecretRefs, VolumeKey, VolumeMode, VolumeUid,
    },
    node::{Agent, Authority, Layout, NodeSettings, Ports},
    proto::cri::ContainerState,
    secret::Vault,
    telemetry::Metrics,
};
use testkit::{
    csi::{Backend, Cleanup, CsiDriver, Options, fuse_server},
    helper::Helper,
    runtime::ListedRuntime,
};
use tokio_util::sync::CancellationToken;

/// Believes every grant: whether one is current is the control plane's word.
struct Believing;

impl Authority for Believing {
    fn current(&self, presented: &Grant) -> Result<Grant> {
        Ok(presented.clone())
    }
}

/// How the node and its volume are.
pub(crate) struct Setup {
    pub(crate) bytes: u64,
    pub(crate) access_mode: AccessMode,
    pub(crate) volume_mode: VolumeMode,
    pub(crate) mount_group: String,
    pub(crate) mount_flags: Vec<String>,
    pub(crate) secret_refs: SecretRefs,
    pub(crate) read_only: bool,
    /// Directories of the volume, each mounted at `/<its path>`, and for which
    /// container; the whole volume is mounted as well.
    pub(crate) sub_paths: Vec<(Option<&'static str>, &'static str)>,
    pub(crate) probe_interval: Duration,
    pub(crate) stats_interval: Duration,
    pub(crate) stop_breaches: bool,
    pub(crate) mount_path: &'static str,
    pub(crate) user_namespace: Option<String>,
    pub(crate) policy: actor_volumes::config::Policy,
    /// No runtime lists what there is.
    pub(crate) no_cri: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            access_mode: AccessMode::SingleNodeSingleWriter,
            volume_mode: VolumeMode::Filesystem,
            mount_group: String::new(),
            mount_flags: Vec::new(),
            secret_refs: SecretRefs::new(),
            read_only: false,
            sub_paths: Vec::new(),
            probe_interval: Duration::ZERO,
            stats_interval: Duration::ZERO,
            stop_breaches: false,
            mount_path: "/my-data",
            user_namespace: None,
            policy: Default::default(),
            no_cri: false,
        }
    }
}

impl Setup {
    pub(crate) fn capability(&self) -> VolumeCapability {
        VolumeCapability {
            access_mode: self.access_mode,
            volume_mode: self.volume_mode,
            fs_type: String::new(),
            mount_flags: self.mount_flags.clone(),
            mount_group: self.mount_group.clone(),
        }
    }
}

/// Which backend, in the directory `backend` of the node.
pub(crate) enum Over {
    Bind,
    Loop,
    Fuse,
}

pub(crate) struct Node {
    pub(crate) agent: Arc<Agent>,
    pub(crate) driver: CsiDriver,
    pub(crate) runtime: ListedRuntime,
    pub(crate) drivers: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) volume: GrantVolume,
    pub(crate) setup: Setup,
    pub(crate) helper: Arc<Mutex<Helper>>,
    /// Before the directory goes.
    _cleanup: Cleanup,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const SOON: Duration = Duration::from_secs(20);

impl Node {
    pub(crate) async fn start() -> Self {
        Self::over(Over::Bind, Setup::default(), |_| ()).await
    }

    pub(crate) async fn over(over: Over, setup: Setup, options: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let root = dir.path().join("backend");
        let backend = match over {
            Over::Bind => Backend::Bind { root },
            Over::Loop => Backend::Loop { root },
            Over::Fuse => Backend::Fuse {
                root,
                server: fuse_server(),
            },
        };
        let cleanup = Cleanup::new(&backend);
        let mut with = Options::new(backend);
        options(&mut with);
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), with).await;
        let runtime = ListedRuntime::start(&dir.path().join("cri.sock")).await;
        let program = Path::new(env!("CARGO_BIN_EXE_actor-volumes"));
        let socket = dir.path().join("helper.sock");
        let helper = Helper::start(program, &socket, &dir.path().join("m"));
        let helper = Arc::new(Mutex::new(helper));
        let shutdown = CancellationToken::new();
        let (agent, volume, drivers, metrics) = Self::agent(dir.path(), &setup, &shutdown).await;
        Self {
            agent,
            driver,
            runtime,
            drivers,
            metrics,
            shutdown,
            volume,
            setup,
            helper,
            _cleanup: cleanup,
            dir,
        }
    }

    pub(crate) async fn agent(
        dir: &Path,
        setup: &Setup,
        shutdown: &CancellationToken,
    ) -> (Arc<Agent>, GrantVolume, Arc<Registry>, Arc<Metrics>) {
        let name = "testkit.actor-volumes.dev".parse().unwrap();
        let drivers = Arc::new(Registry::new(vec![DriverConfig::unix(
            name,
            dir.join("csi.sock"),
            Duration::from_secs(5),
        )]));
        let created = drivers.list()[0]
            .create_volume(&CreateVolume {
                name: "av-1".into(),
                required_bytes: setup.bytes,
                capability: setup.capability(),
                parameters: Default::default(),
                accessibility: Default::default(),
                secrets: Default::default(),
            })
            .await
            .unwrap();
        let volume = GrantVolume {
            name: "vol1".parse().unwrap(),
            uid: VolumeUid::new("v-1").unwrap(),
            generation: Generation(1),
            driver: "testkit.actor-volumes.dev".parse().unwrap(),
            volume_id: created.volume_id,
            volume_mode: setup.volume_mode,
            fs_type: String::new(),
            access_mode: setup.access_mode,
            mount_flags: setup.mount_flags.clone(),
            mount_group: setup.mount_group.clone(),
            secret_refs: setup.secret_refs.clone(),
            volume_context: created.volume_context,
            publish_context: Default::default(),
        };
        KeyDir::new(dir.join("keys")).ensure().unwrap();
        let settings = NodeSettings {
            name: "node-a".parse().unwrap(),
            layout: Layout::new(&dir.join("state"), &dir.join("m")),
            trusted_namespaces: vec!["agents".parse().unwrap()],
            policy: setup.policy.rules(),
            max_wait: Duration::from_millis(1_500),
            wait_percent: 100,
            member_grace: Duration::from_millis(200),
            sweep_interval: Duration::from_millis(200),
            breach_interval: Duration::from_millis(200),
            stop_breaches: setup.stop_breaches,
            stats_interval: setup.stats_interval,
            probe_interval: setup.probe_interval,
            helper: dir.join("helper.sock"),
        };
        let metrics = Arc::new(Metrics::default());
        let ports = Ports {
            drivers: Arc::clone(&drivers),
            cri: Cri::new(
                (!setup.no_cri).then(|| dir.join("cri.sock")),
                Duration::from_secs(5),
            ),
            authority: Arc::new(Believing),
            keys: Arc::new(TrustedKeys::open(vec![dir.join("keys/public")])),
            vault: Vault::new(Some(dir.join("secrets"))),
            metrics: Arc::clone(&metrics),
        };
        let agent = Agent::start(settings, ports, shutdown.clone()).unwrap();
        (agent, volume, drivers, metrics)
    }

    pub(crate) fn grant(&self, generation: u64) -> Grant {
        let mut volume = self.volume.clone();
        volume.generation = Generation(generation);
        let name = volume.name.clone();
        let mount = GrantMount {
            container: None,
            volume: name.clone(),
            mount_path: self.setup.mount_path.into(),
            read_only: self.setup.read_only,
            sub_path: None,
        };
        let device = GrantDevice {
            container: None,
            volume: name,
            device_path: "/dev/xvda".into(),
        };
        let (mounts, devices) = match volume.volume_mode {
            VolumeMode::Filesystem => {
                let of = |(container, path): &(Option<&str>, &str)| GrantMount {
                    container: container.map(|c| c.parse().unwrap()),
                    mount_path: format!("/{path}"),
                    sub_path: Some(path.parse().unwrap()),
                    ..mount.clone()
                };
                let sub_paths = self.setup.sub_paths.iter().map(of);
                (sub_paths.chain([mount.clone()]).collect(), Vec::new())
            }
            VolumeMode::Block => (Vec::new(), vec![device]),
        };
        Grant {
            version: 1,
            actor: GrantActor {
                namespace: "agents".parse().unwrap(),
                name: "a".parse().unwrap(),
                uid: ActorUid::new("a-1").unwrap(),
            },
            node: "node-a".parse().unwrap(),
            audience: Audience::Pod {
                namespace: "agents".parse().unwrap(),
                pod: None,
            },
            not_after: None,
            self_contained: false,
            volumes: vec![volume],
            mounts,
            devices,
        }
    }

    /// A sandbox with this grant, which the runtime lists as ready.
    pub(crate) fn sandbox(&self, id: &str, generation: u64) -> SandboxView {
        self.runtime.set(|lists| {
            lists.sandboxes.insert(id.into(), true);
        });
        SandboxView {
            id: id.into(),
            name: format!("pod-{id}"),
            namespace: "agents".into(),
            uid: id.into(),
            annotations: annotation::write(&self.grant(generation)).unwrap(),
            ..SandboxView::default()
        }
    }

    /// The keys of its control plane.
    pub(crate) fn keys(&self) -> KeyDir {
        KeyDir::new(self.dir.path().join("keys"))
    }

    /// A container of the pod.
    pub(crate) fn view(sandbox: &SandboxView, id: &str, name: &str) -> ContainerView {
        ContainerView {
            id: id.into(),
            sandbox: sandbox.id.clone(),
            name: name.into(),
            ..ContainerView::default()
        }
    }

    pub(crate) async fn create(&self, sandbox: &SandboxView, container: &str) -> Result<Needs> {
        self.create_named(sandbox, container, "agent").await
    }

    pub(crate) async fn create_named(
        &self,
        sandbox: &SandboxView,
        id: &str,
        name: &str,
    ) -> Result<Needs> {
        let container = ContainerView {
            user_namespace: self.setup.user_namespace.clone(),
            ..Self::view(sandbox, id, name)
        };
        let until = Instant::now() + Duration::from_millis(1_500);
        self.agent
            .container_created(sandbox, &container, until)
            .await
    }

    /// The agent starts again over what is on disk.
    pub(crate) async fn restart(&mut self) {
        self.shutdown.cancel();
        self.shutdown = CancellationToken::new();
        self.agent = Self::agent(self.dir.path(), &self.setup, &self.shutdown)
            .await
            .0;
    }

    /// As a kubelet does: until it succeeds.
    pub(crate) async fn needs(&self, sandbox: &SandboxView, container: &str) -> Needs {
        let start = Instant::now();
        loop {
            match self.create(sandbox, container).await {
                Ok(needs) => return needs,
                Err(error) if start.elapsed() > SOON => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The same; gives the target path of the volume's mount.
    pub(crate) async fn create_until(&self, sandbox: &SandboxView, container: &str) -> PathBuf {
        self.needs(sandbox, container).await.mounts[0]
            .source
            .clone()
    }

    /// The runtime says that the container is running, or not there any more.
    pub(crate) fn runs(&self, sandbox: &str, container: &str, running: bool) {
        self.runtime.set(|lists| {
            let entry = (sandbox.to_owned(), ContainerState::ContainerRunning);
            if running {
                lists.containers.insert(container.into(), entry);
            } else {
                lists.containers.remove(container);
            }
        });
        if !running {
            self.agent.container_gone(sandbox, container);
        }
    }

    /// The sandbox and its container end.
    pub(crate) fn end(&self, sandbox: &str, container: &str) {
        self.runs(sandbox, container, false);
        self.agent.sandbox_over(sandbox, "its sandbox was stopped");
    }

    pub(crate) fn key(&self) -> VolumeKey {
        self.volume.key()
    }

    /// Our client of the driver.
    pub(crate) fn client(&self) -> Arc<Driver> {
        self.drivers.list()[0].clone()
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.dir
            .path()
            .join("m")
            .join(self.key().hash())
            .join("staging")
    }

    /// What the records hold, as text.
    pub(crate) fn records(&self) -> String {
        let records = fs::read_dir(self.dir.path().join("state/records")).unwrap();
        records
            .map(|r| fs::read_to_string(r.unwrap().path()).unwrap())
            .collect()
    }

    /// The value of the metric whose line begins so; none: there is none.
    pub(crate) fn metric(&self, line: &str) -> Option<u64> {
        let text = self.metrics.text().unwrap();
        let found = text.lines().find(|l| l.starts_with(line))?;
        found.rsplit(' ').next().unwrap().parse().ok()
    }

    /// Waits until `what` is so.
    pub(crate) async fn until(&self, what: &str, is: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !is().await {
            assert!(start.elapsed() < SOON, "never: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_released(&self) {
        let start = Instant::now();
        while let Some(held) = self.agent.held(&self.key()).await {
            assert!(start.elapsed() < SOON, "still held: {held}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the test: everything released, nothing left, no rule broken.
    pub(crate) async fn finish(self) {
        self.until_released().await;
        let root = self.dir.path().join("m");
        assert_eq!(fs::read_dir(root).unwrap().count(), 0, "directories left");
        assert_eq!(self.driver.violations(), [""; 0]);
        self.shutdown.cancel();
    }
}

/// A process in a mount namespace of its own, with a copy of the mount table.
pub(crate) struct Elsewhere(pub(crate) Child);

impl Elsewhere {
    pub(crate) fn start(script: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{script} echo ready; exec sleep 1000"))
            .arg("sh")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a shell command in this directory; gives whether it succeeded.
pub(crate) fn shell(directory: &Path, script: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}
