// SPDX-License-Identifier: Apache-2.0
//! A plugin that writes down what it is told, and the place it runs in.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use actor_volumes::{
    error::{Error, Result},
    nri::{EventMask, Plugin, RuntimeInfo, SessionConfig, Status, run},
    proto::{
        nri::{Container, ContainerAdjustment, Mount, PodSandbox},
        ttrpc::Request,
    },
};
use prost::Message;
use testkit::nri::Runtime;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

type Creation = Pin<Box<dyn Future<Output = Result<ContainerAdjustment>> + Send>>;
type Creates = Box<dyn Fn(&Container, Instant) -> Creation + Send + Sync>;

/// A plugin that writes down what it is told.
pub(crate) struct Recorder {
    wants: EventMask,
    creates: Creates,
    seen: watch::Sender<Vec<String>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            wants: usual_events(),
            creates: Box::new(|_, _| Box::pin(async { Ok(ContainerAdjustment::default()) })),
            seen: watch::Sender::default(),
        }
    }
}

fn usual_events() -> EventMask {
    EventMask::RUN_POD_SANDBOX
        | EventMask::STOP_POD_SANDBOX
        | EventMask::REMOVE_POD_SANDBOX
        | EventMask::CREATE_CONTAINER
        | EventMask::POST_CREATE_CONTAINER
        | EventMask::START_CONTAINER
        | EventMask::POST_START_CONTAINER
        | EventMask::STOP_CONTAINER
        | EventMask::REMOVE_CONTAINER
}

/// Every bit that any version has.
pub(crate) fn every_event() -> EventMask {
    EventMask::known_by("", "", "v0.12.0")
}

impl Recorder {
    pub(crate) fn wants(mut self, events: EventMask) -> Self {
        self.wants = events;
        self
    }

    pub(crate) fn creates(
        mut self,
        creates: impl Fn(&Container, Instant) -> Creation + Send + Sync + 'static,
    ) -> Self {
        self.creates = Box::new(creates);
        self
    }

    fn note(&self, text: impl Into<String>) {
        self.seen.send_modify(|seen| seen.push(text.into()));
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    pub(crate) fn seen_with(&self, start: &str) -> Vec<String> {
        let mut seen = self.seen();
        seen.retain(|s| s.starts_with(start));
        seen
    }

    pub(crate) async fn wait_for(&self, start: &str, times: usize) {
        let mut seen = self.seen.subscribe();
        let enough = seen.wait_for(|seen| {
            let found = seen.iter().filter(|s| s.starts_with(start)).count();
            found >= times
        });
        let waited = tokio::time::timeout(PATIENCE, enough).await;
        assert!(waited.is_ok(), "no {start:?} {times} times");
    }
}

impl Plugin for Recorder {
    fn events(&self) -> EventMask {
        self.wants
    }

    fn configured(&self, runtime: RuntimeInfo) {
        self.note(format!(
            "configured by {} {}",
            runtime.name, runtime.version
        ));
    }

    fn synchronized(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        let (pods, containers) = (pods.len(), containers.len());
        self.note(format!("state: {pods} pods, {containers} containers"));
    }

    fn run_pod_sandbox(&self, pod: PodSandbox) {
        self.note(format!("run {}", pod.id));
        if !pod.annotations.is_empty() {
            let bytes: usize = pod.annotations.values().map(String::len).sum();
            self.note(format!("annotations: {bytes}"));
        }
    }

    async fn create_container(
        &self,
        _pod: PodSandbox,
        container: Container,
        deadline: Instant,
    ) -> Result<ContainerAdjustment> {
        self.note(format!("create {}", container.id));
        (self.creates)(&container, deadline).await
    }

    fn post_create_container(&self, _pod: PodSandbox, container: Container) {
        self.note(format!("created {}", container.id));
    }

    fn start_container(&self, _pod: PodSandbox, container: Container) {
        self.note(format!("starting {}", container.id));
    }

    fn post_start_container(&self, _pod: PodSandbox, container: Container) {
        self.note(format!("started {}", container.id));
    }

    fn stop_container(&self, _pod: PodSandbox, container: Container) {
        assert_ne!(container.id, "panic", "on purpose");
        self.note(format!("stopped {}", container.id));
    }

    fn remove_container(&self, _pod: PodSandbox, container: Container) {
        self.note(format!("removed {}", container.id));
    }

    fn stop_pod_sandbox(&self, pod: PodSandbox) {
        self.note(format!("stop {}", pod.id));
    }

    fn remove_pod_sandbox(&self, pod: PodSandbox) {
        self.note(format!("remove {}", pod.id));
    }

    fn disconnected(&self, _why: &Error) {
        self.note("disconnected");
    }
}

/// A temporary directory for the socket.
pub(crate) struct House(tempfile::TempDir);

/// A running plugin.
pub(crate) struct Session {
    pub(crate) plugin: Arc<Recorder>,
    pub(crate) status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn start(&self, plugin: Recorder) -> Session {
        self.start_as("volumes", "10", plugin)
    }

    pub(crate) fn start_as(&self, name: &str, index: &str, plugin: Recorder) -> Session {
        let config = SessionConfig {
            socket: Runtime::socket_in(self.dir()),
            name: name.into(),
            index: index.into(),
        };
        let plugin = Arc::new(plugin);
        let shutdown = CancellationToken::new();
        let (sender, status) = watch::channel(Status::Connected);
        let running = tokio::spawn(run(config, Arc::clone(&plugin), shutdown.clone(), sender));
        Session {
            plugin,
            status,
            shutdown,
            running,
        }
    }
}

impl Session {
    pub(crate) async fn wait_synchronized(&mut self) -> RuntimeInfo {
        let status = self
            .wait(|s| matches!(s, Status::Synchronized { .. }))
            .await;
        let Status::Synchronized { runtime } = status else {
            unreachable!("waited for it")
        };
        runtime
    }

    pub(crate) async fn wait_disconnected(&mut self) -> String {
        self.wait_disconnected_with("").await
    }

    pub(crate) async fn wait_disconnected_with(&mut self, text: &str) -> String {
        let status = self
            .wait(|s| matches!(s, Status::Disconnected { why } if why.contains(text)))
            .await;
        let Status::Disconnected { why } = status else {
            unreachable!("waited for it")
        };
        why
    }

    async fn wait(&mut self, is_it: impl FnMut(&Status) -> bool) -> Status {
        let waited = tokio::time::timeout(PATIENCE, self.status.wait_for(is_it)).await;
        waited
            .expect("it did not come to that")
            .expect("the plugin runs")
            .clone()
    }

    pub(crate) async fn stop(self) -> Arc<Recorder> {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended.expect("it did not stop").expect("it did not panic");
        self.plugin
    }
}

pub(crate) fn pod(id: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        name: format!("name-of-{id}"),
        namespace: "agents".into(),
        ..Default::default()
    }
}

pub(crate) fn container(pod: &str, id: &str) -> Container {
    Container {
        id: id.into(),
        pod_sandbox_id: pod.into(),
        name: format!("name-of-{id}"),
        ..Default::default()
    }
}

pub(crate) fn mount(destination: &str, source: &str) -> Mount {
    Mount {
        destination: destination.into(),
        r#type: "bind".into(),
        source: source.into(),
        options: vec!["rbind".into(), "rprivate".into()],
    }
}

/// One ttrpc request as it goes over the wire.
pub(crate) fn request_bytes(
    stream: u32,
    service: &str,
    method: &str,
    payload: &impl Message,
) -> Vec<u8> {
    let request = Request {
        service: service.into(),
        method: method.into(),
        payload: payload.encode_to_vec(),
        timeout_nano: 0,
        metadata: Vec::new(),
    };
    let body = request.encode_to_vec();
    let mut bytes = u32::try_from(body.len())
        .expect("a short request")
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend(body);
    bytes
}
