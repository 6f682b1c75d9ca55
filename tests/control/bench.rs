// SPDX-License-Identifier: Apache-2.0
//! A control plane on a socket of its own, over the real CSI client and a driver
//! that faults on demand. The node is told by the test what it holds.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actor_volumes::{
    control::{
        Control, ControlService, NodePort, Settings, check,
        lifecycle::Pace,
        store::{RedbStore, Store},
    },
    csi::{DriverConfig, Registry, VolumeStats},
    error::{Error, Result},
    model::{ActorRef, Generation, NodeName, VolumeKey},
    proto::{
        api::{self, control_server::ControlServer},
        csi::controller_service_capability::rpc::Type as ControllerType,
    },
    rpc::Client,
    secret::Vault,
    transport,
};
use tempfile::TempDir;
use testkit::csi::{Backend, CsiDriver, Options};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::recorder::{Abilities, Recorder};

pub(crate) const DRIVER: &str = "testkit.actor-volumes.dev";

/// A node that holds what the test says.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub(crate) holder: Mutex<Option<String>>,
    pub(crate) revoked: Mutex<BTreeMap<String, u64>>,
    pub(crate) forgotten: Mutex<Vec<String>>,
    pub(crate) out_of_order: Mutex<bool>,
    /// Whether a pod uses the volumes, so that the node can expand them.
    pub(crate) published: Mutex<bool>,
    /// What the node was told to expand, and to how much.
    pub(crate) expanded: Mutex<Vec<(String, u64)>>,
    /// Volumes that are quiet now, and all that ever were.
    pub(crate) quiet: Mutex<BTreeMap<String, bool>>,
    /// None: the node does not answer.
    pub(crate) stats: Mutex<Option<VolumeStats>>,
    released: Notify,
}

impl FakeNode {
    pub(crate) fn hold(&self, holder: &str) {
        *self.holder.lock().unwrap() = Some(holder.into());
    }

    pub(crate) fn release(&self) {
        *self.holder.lock().unwrap() = None;
        self.released.notify_waiters();
    }
}

#[tonic::async_trait]
impl NodePort for FakeNode {
    async fn revoke(&self, _: &NodeName, volume: &VolumeKey, at: Generation) -> Result<()> {
        if *self.out_of_order.lock().unwrap() {
            return Err(Error::unavailable("the node is out of order"));
        }
        let mut revoked = self.revoked.lock().unwrap();
        revoked.insert(volume.volume_id.clone(), at.0);
        Ok(())
    }

    async fn held(&self, _: &NodeName, volume: &VolumeKey) -> Result<Option<String>> {
        let revoked = self.revoked.lock().unwrap();
        assert!(revoked.contains_key(&volume.volume_id), "asked too early");
        Ok(self.holder.lock().unwrap().clone())
    }

    async fn released(&self, _: &NodeName) {
        self.released.notified().await;
    }

    async fn forget(&self, _: &NodeName, volume: &VolumeKey) -> Result<()> {
        if *self.out_of_order.lock().unwrap() {
            return Err(Error::unavailable("the node is out of order"));
        }
        let mut forgotten = self.forgotten.lock().unwrap();
        forgotten.push(volume.volume_id.clone());
        Ok(())
    }

    async fn quiet(&self, _: &NodeName, volume: &VolumeKey, _: Duration) -> Result<()> {
        let mut quiet = self.quiet.lock().unwrap();
        quiet.insert(volume.volume_id.clone(), true);
        Ok(())
    }

    async fn unquiet(&self, _: &NodeName, volume: &VolumeKey) {
        let mut quiet = self.quiet.lock().unwrap();
        quiet.insert(volume.volume_id.clone(), false);
    }

    async fn expand(&self, _: &NodeName, volume: &VolumeKey, bytes: u64) -> Result<bool> {
        if *self.published.lock().unwrap() {
            let mut expanded = self.expanded.lock().unwrap();
            expanded.push((volume.volume_id.clone(), bytes));
            return Ok(true);
        }
        Ok(false)
    }

    async fn stats(&self, _: &NodeName, _: &VolumeKey) -> Result<Option<VolumeStats>> {
        let stats = self.stats.lock().unwrap().clone();
        match stats {
            Some(stats) => Ok(Some(stats)),
            None => std::future::pending().await,
        }
    }
}

/// Everything that takes time takes little; secrets are below the directory.
fn quick(dir: &TempDir) -> Settings {
    Settings {
        vault: Vault::new(Some(dir.path().join("secrets"))),
        pace: Pace {
            first: Duration::from_millis(20),
            longest: Duration::from_millis(200),
        },
        reconcile_interval: Duration::from_millis(100),
        ..Settings::default()
    }
}

pub(crate) struct Bench<D = CsiDriver> {
    pub(crate) dir: TempDir,
    pub(crate) driver: D,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) store: Arc<RedbStore>,
    pub(crate) control: Arc<Control>,
    pub(crate) client: Client,
    settings: Settings,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Bench {
    /// A driver that attaches.
    pub(crate) async fn new() -> Self {
        Self::with(|options| options.attach = true).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Backend::Memory);
        change(&mut options);
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
        Self::over(dir, driver, Settings::default()).await
    }

    /// One that fails at random: everything that takes time takes little.
    pub(crate) async fn hostile(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(Backend::Memory);
        change(&mut options);
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
        let settings = quick(&dir);
        Self::over(dir, driver, settings).await
    }

    /// Nothing is left in the driver, and it saw no rule of CSI broken.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.driver.volumes(), Vec::<String>::new());
        self.kept_the_rules();
    }

    pub(crate) fn kept_the_rules(&self) {
        // At any moment the records fit each other, and the index fits them.
        let snapshot = self.store.snapshot().unwrap();
        assert_eq!(check::check(&*snapshot).unwrap().findings, []);
        assert_eq!(self.driver.violations(), Vec::<String>::new());
    }
}

impl Bench<Recorder> {
    /// A driver that attaches and keeps what it is sent; everything that takes
    /// time takes little.
    pub(crate) async fn recorded(change: impl FnOnce(&mut Abilities)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut abilities = Abilities {
            controller: vec![ControllerType::PublishUnpublishVolume],
            ..Abilities::default()
        };
        change(&mut abilities);
        let driver = Recorder::start(&dir.path().join("csi.sock"), abilities).await;
        let settings = quick(&dir);
        Self::over(dir, driver, settings).await
    }
}

impl<D> Bench<D> {
    pub(crate) async fn over(dir: TempDir, driver: D, settings: Settings) -> Self {
        let node = Arc::new(FakeNode::default());
        let served = serve(&dir, node.clone(), settings.clone()).await;
        Self {
            dir,
            driver,
            node,
            store: served.store,
            control: served.control,
            client: served.client,
            settings,
            stop: served.stop,
            served: served.task,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Ends the control plane in the midst of whatever it does, and starts another
    /// over the same store.
    pub(crate) async fn restart(self) -> Self {
        self.control.shutdown().await;
        self.stop.cancel();
        self.served.await.unwrap();
        drop((self.control, self.client, self.store));
        let served = serve(&self.dir, self.node.clone(), self.settings.clone()).await;
        Self {
            store: served.store,
            control: served.control,
            client: served.client,
            stop: served.stop,
            served: served.task,
            ..self
        }
    }

    /// The class `pool` and the template `t` with the volume `vol1`.
    pub(crate) async fn catalog(&mut self) {
        self.class("pool", "").await.unwrap();
        self.template("t", "1Mi").await.unwrap();
    }

    pub(crate) async fn class(&mut self, name: &str, more: &str) -> Result<i32> {
        let text = format!(
            "kind: StorageClass\nmetadata: {{name: {name}}}\nprovisioner: {DRIVER}\n{more}"
        );
        let request = api::ApplyStorageClassRequest { text };
        Ok(self.client.apply_storage_class(request).await?.applied)
    }

    pub(crate) async fn template(
        &mut self,
        name: &str,
        capacity: &str,
    ) -> Result<api::ApplyTemplateResponse> {
        let uses = "volumeMounts: [{name: vol1, mountPath: /my-data}]";
        self.template_that(name, uses, &format!("capacity: {capacity}"))
            .await
    }

    /// A template with one container that uses the volume `vol1` so, and with
    /// these fields of the volume.
    pub(crate) async fn template_that(
        &mut self,
        name: &str,
        uses: &str,
        volume: &str,
    ) -> Result<api::ApplyTemplateResponse> {
        let text = format!(
            "kind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {uses}\n  volumes:\n  - name: vol1\n    externalVolumeTemplate: {{{volume}, storageClassName: pool}}\n"
        );
        let request = api::ApplyTemplateRequest { text };
        self.client.apply_template(request).await
    }

    pub(crate) async fn create(&mut self, name: &str, wait: bool) -> Result<api::Actor> {
        let request = api::CreateActorRequest {
            namespace: "agents".into(),
            name: name.into(),
            template: "t".into(),
            wait,
            timeout_ms: 10_000,
            ..Default::default()
        };
        self.client.create_actor(request).await
    }

    pub(crate) async fn resume(&mut self, name: &str) -> Result<api::ResumeActorResponse> {
        self.client.resume_actor(resume(name)).await
    }

    pub(crate) async fn suspend(&mut self, name: &str, wait: bool) -> Result<api::Actor> {
        let request = api::SuspendActorRequest {
            namespace: "agents".into(),
            name: name.into(),
            wait,
            timeout_ms: 10_000,
            ..Default::default()
        };
        self.client.suspend_actor(request).await
    }

    pub(crate) async fn delete(&mut self, name: &str, wait: bool) -> Result<()> {
        let request = api::DeleteActorRequest {
            namespace: "agents".into(),
            name: name.into(),
            wait,
            timeout_ms: 20_000,
            ..Default::default()
        };
        self.client.delete_actor(request).await.map(drop)
    }

    pub(crate) async fn show(&mut self, name: &str) -> Result<api::Actor> {
        let request = api::GetActorRequest {
            namespace: "agents".into(),
            name: name.into(),
        };
        self.client.get_actor(request).await
    }

    pub(crate) async fn volumes(&mut self) -> Vec<api::Volume> {
        let request = api::ListVolumesRequest {
            page_size: 1,
            ..Default::default()
        };
        self.client.volumes(request).await.unwrap()
    }

    /// Waits until the actor is in this phase.
    pub(crate) async fn until(&mut self, name: &str, phase: &str) -> api::Actor {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let actor = self.show(name).await.unwrap();
            if actor.phase == phase {
                return actor;
            }
            assert!(
                Instant::now() < end,
                "still {}: {}",
                actor.phase,
                actor.message
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The only volume, with its usage.
    pub(crate) async fn volume(&mut self) -> api::Volume {
        let uid = self.volumes().await.remove(0).uid;
        let request = api::GetVolumeRequest { uid };
        self.client.get_volume(request).await.unwrap()
    }

    /// Waits until the only volume is so.
    pub(crate) async fn until_volume(
        &mut self,
        what: &str,
        is_so: impl Fn(&api::Volume) -> bool,
    ) -> api::Volume {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let volume = self.volumes().await.remove(0);
            if is_so(&volume) {
                return volume;
            }
            assert!(Instant::now() < end, "never {what}: {}", shown(&volume));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) fn resume(name: &str) -> api::ResumeActorRequest {
    api::ResumeActorRequest {
        namespace: "agents".into(),
        name: name.into(),
        timeout_ms: 10_000,
        ..Default::default()
    }
}

/// A message of the API, for people.
pub(crate) fn shown(message: &impl serde::Serialize) -> String {
    serde_json::to_string(message).unwrap()
}

pub(crate) fn actor(name: &str) -> ActorRef {
    format!("agents/{name}").parse().unwrap()
}

struct Served {
    store: Arc<RedbStore>,
    control: Arc<Control>,
    client: Client,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(dir: &TempDir, node: Arc<FakeNode>, settings: Settings) -> Served {
    let store = Arc::new(RedbStore::open(&dir.path().join("control.redb")).unwrap());
    let drivers = Registry::new(vec![DriverConfig::unix(
        DRIVER.parse().unwrap(),
        dir.path().join("csi.sock"),
        Duration::from_secs(5),
    )]);
    let control = Control::open(
        store.clone(),
        Arc::new(drivers),
        node,
        "node-a".parse().unwrap(),
        settings,
    )
    .await
    .unwrap();
    let socket = dir.path().join("control.sock");
    let incoming = transport::bind(&socket).await.unwrap();
    let stop = CancellationToken::new();
    let server = tonic::transport::Server::builder()
        .add_service(ControlServer::new(ControlService::new(control.clone())))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let task = tokio::spawn(async move { server.await.unwrap() });
    let client = Client::connect(&socket, Duration::from_secs(30))
        .await
        .unwrap();
    Served {
        store,
        control,
        client,
        stop,
        task,
    }
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "never {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
