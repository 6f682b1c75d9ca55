// SPDX-License-Identifier: Apache-2.0
//! Control plane and node agent in a runtime of their own, so that both can be
//! killed at any point and started again over what is on disk.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actor_volumes::{
    control::{Control, NodePort, Settings, store::RedbStore},
    cri::Cri,
    csi::{DriverConfig, Registry},
    error::{Error, Result},
    host::mountinfo,
    keys::TrustedKeys,
    model::{Generation, Grant, NodeName, VolumeKey},
    node::{Agent, Authority, Layout, NodeSettings, Ports},
    secret::Vault,
    telemetry::Metrics,
};
use tempfile::TempDir;
use testkit::{
    csi::{Backend, CsiDriver, Options},
    runtime::ListedRuntime,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::AT_LAST;

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";

const CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard}
provisioner: testkit.actor-volumes.dev
";

const TEMPLATE: &str = "
apiVersion: actor-volumes.dev/v1alpha1
kind: ActorTemplate
metadata: {name: t}
spec:
  containers:
  - name: agent
    volumeMounts:
    - {name: one, mountPath: /one}
    - {name: two, mountPath: /two}
  volumes:
  - {name: one, externalVolumeTemplate: {capacity: 1Mi, storageClassName: standard}}
  - {name: two, externalVolumeTemplate: {capacity: 2Mi, storageClassName: standard, accessMode: ReadWriteOnce}}
";

/// For actors of one volume each.
const SMALL_TEMPLATE: &str = "
apiVersion: actor-volumes.dev/v1alpha1
kind: ActorTemplate
metadata: {name: small}
spec:
  containers:
  - name: agent
    volumeMounts: [{name: one, mountPath: /one}]
  volumes:
  - {name: one, externalVolumeTemplate: {capacity: 1Mi, storageClassName: standard}}
";

pub(crate) struct House {
    dir: TempDir,
    pub(crate) driver: tokio::sync::Mutex<CsiDriver>,
    pub(crate) runtime: ListedRuntime,
    call_timeout: Duration,
    run: Mutex<Option<Run>>,
    pub(crate) kills: AtomicUsize,
}

struct Run {
    threads: Runtime,
    control: Arc<Control>,
    agent: Arc<Agent>,
}

/// The node, as the control plane of the same process sees it. Weak: the agent
/// knows the control plane, and a ring of the two would outlive their runtime.
#[derive(Default)]
struct Near(OnceLock<Weak<Agent>>);

impl Near {
    fn agent(&self) -> Result<Arc<Agent>> {
        let agent = self.0.get().and_then(Weak::upgrade);
        agent.ok_or_else(|| Error::unavailable("the node agent is starting"))
    }
}

#[tonic::async_trait]
impl NodePort for Near {
    async fn revoke(&self, _: &NodeName, key: &VolumeKey, at: Generation) -> Result<()> {
        self.agent()?.revoke(key, at).await
    }

    async fn held(&self, _: &NodeName, key: &VolumeKey) -> Result<Option<String>> {
        Ok(self.agent()?.held(key).await)
    }

    async fn released(&self, _: &NodeName) {
        match self.agent() {
            Ok(agent) => {
                let _ = agent.releases().changed().await;
            }
            Err(_) => std::future::pending().await,
        }
    }

    async fn forget(&self, _: &NodeName, key: &VolumeKey) -> Result<()> {
        self.agent()?.forget(key).await
    }
}

struct CurrentWord(Arc<Control>);

impl Authority for CurrentWord {
    fn current(&self, presented: &Grant) -> Result<Grant> {
        self.0
            .current_grant(&presented.actor_ref())
            .filter(|current| presented.same_word(current))
            .ok_or_else(|| Error::precondition("the grant is over"))
    }
}

impl House {
    /// `call_timeout` is the deadline of each call to the driver.
    pub(crate) async fn start(call_timeout: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let options = Options {
            attach: true,
            // It lives as long as the test, also when it is stopped.
            persist: false,
            ..Options::new(Backend::Bind {
                root: dir.path().join("backend"),
            })
        };
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
        let runtime = ListedRuntime::start(&dir.path().join("cri.sock")).await;
        let house = Self {
            dir,
            driver: tokio::sync::Mutex::new(driver),
            runtime,
            call_timeout,
            run: Mutex::default(),
            kills: AtomicUsize::new(0),
        };
        house.open().await;
        let control = |what: &'static str, text: &'static str| {
            house.with_control(move |control| async move {
                match what {
                    "class" => control.apply_storage_class(text).await.map(drop),
                    _ => control.apply_template(text).await.map(drop),
                }
            })
        };
        control("class", CLASS).await.unwrap().unwrap();
        control("template", TEMPLATE).await.unwrap().unwrap();
        let small = control("template", SMALL_TEMPLATE);
        small.await.unwrap().unwrap();
        house
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts control plane and node agent over what is on disk.
    async fn open(&self) {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (dir, call_timeout) = (self.dir.path().to_owned(), self.call_timeout);
        let opened = threads.spawn(async move {
            let drivers = Arc::new(Registry::new(vec![DriverConfig::unix(
                DRIVER.parse().unwrap(),
                dir.join("csi.sock"),
                call_timeout,
            )]));
            let near = Arc::new(Near::default());
            let store = RedbStore::open(&dir.join("control.redb")).unwrap();
            let control = Control::open(
                Arc::new(store),
                drivers.clone(),
                near.clone(),
                "node-a".parse().unwrap(),
                Settings::default(),
            )
            .await
            .unwrap();
            let settings = NodeSettings {
                name: "node-a".parse().unwrap(),
                layout: Layout::new(&dir.join("state"), &dir.join("m")),
                trusted_namespaces: vec!["agents".parse().unwrap()],
                policy: actor_volumes::config::Policy::default().rules(),
                max_wait: Duration::from_secs(1),
                wait_percent: 100,
                member_grace: Duration::from_millis(200),
                sweep_interval: Duration::from_millis(300),
                breach_interval: Duration::from_millis(300),
                stop_breaches: false,
                stats_interval: Duration::ZERO,
                probe_interval: Duration::ZERO,
                helper: dir.join("helper.sock"),
            };
            let ports = Ports {
                drivers,
                cri: Cri::new(Some(dir.join("cri.sock")), Duration::from_secs(5)),
                authority: Arc::new(CurrentWord(control.clone())),
                keys: Arc::new(TrustedKeys::open(Vec::new())),
                vault: Vault::default(),
                metrics: Arc::new(Metrics::default()),
            };
            let agent = Agent::start(settings, ports, CancellationToken::new()).unwrap();
            let _ = near.0.set(Arc::downgrade(&agent));
            (control, agent)
        });
        let (control, agent) = opened.await.unwrap();
        *self.run.lock().unwrap() = Some(Run {
            threads,
            control,
            agent,
        });
    }

    async fn close(&self) {
        let Some(run) = self.run.lock().unwrap().take() else {
            return;
        };
        let Run {
            threads,
            control,
            agent,
        } = run;
        drop((control, agent));
        // Cuts every task where it stands; what blocks comes to its end.
        let closing = move || threads.shutdown_timeout(Duration::from_secs(20));
        tokio::task::spawn_blocking(closing).await.unwrap();
    }

    /// Kills the house at whatever it is doing, and starts it again.
    pub(crate) async fn kill(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
        self.close().await;
        self.open().await;
    }

    pub(crate) async fn stop(&self) {
        self.close().await;
    }

    /// Runs in the house; none: it was killed meanwhile.
    pub(crate) async fn with_control<T, F>(&self, work: impl FnOnce(Arc<Control>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = {
            let run = self.run.lock().unwrap();
            let run = run.as_ref()?;
            run.threads.spawn(work(run.control.clone()))
        };
        finished(task).await
    }

    pub(crate) async fn with_agent<T, F>(&self, work: impl FnOnce(Arc<Agent>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = {
            let run = self.run.lock().unwrap();
            let run = run.as_ref()?;
            run.threads.spawn(work(run.agent.clone()))
        };
        finished(task).await
    }

    pub(crate) fn tell_of_end(&self, sandbox: &str) {
        let run = self.run.lock().unwrap();
        if let Some(run) = run.as_ref() {
            let _in_house = run.threads.enter();
            run.agent.sandbox_over(sandbox, "stopped");
        }
    }

    /// Waits until nothing is mounted, attached or left but the volumes that are
    /// kept.
    pub(crate) async fn until_at_rest(&self, kept: &[String]) {
        let start = Instant::now();
        loop {
            let root = self.path("m");
            let mounts: Vec<_> = mountinfo::own()
                .unwrap()
                .into_iter()
                .filter(|m| m.mount_point.starts_with(&root))
                .map(|m| m.mount_point)
                .collect();
            let mut volumes = self.driver.lock().await.volumes();
            volumes.sort();
            // No deletion waits for the node's records of volumes to go.
            let records = std::fs::read_dir(self.path("state/records")).unwrap();
            let records = records.count();
            if mounts.is_empty() && volumes == kept && records <= kept.len() {
                break;
            }
            assert!(
                start.elapsed() < AT_LAST,
                "mounted: {mounts:?}; volumes: {volumes:?}; kept: {kept:?}; records: {records}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let left: Vec<_> = std::fs::read_dir(self.path("m"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "directories are left: {left:?}");
    }
}

async fn finished<T>(task: tokio::task::JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(done) => Some(done),
        Err(e) if e.is_cancelled() => None,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
