// SPDX-License-Identifier: Apache-2.0
//! What a runtime does with one plugin: relaying events to it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use actor_volumes::proto::nri::{
    Container, ContainerAdjustment, CreateContainerRequest, CreateContainerResponse, Empty, Event,
    PodSandbox, StateChangeEvent, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use prost::Message;
use tokio::{net::UnixStream, sync::mpsc};

use super::{
    Behaviour, Status, Version,
    wire::{CallError, Incoming, PLUGIN, Wire, frame},
};

const UNIMPLEMENTED: i32 = 12;
const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// One connected plugin. Clones are the same plugin.
#[derive(Clone)]
pub struct PluginHandle(Arc<Inner>);

struct Inner {
    wire: Arc<Wire>,
    version: Version,
    behaviour: Behaviour,
    name: OnceLock<String>,
    events: AtomicU32,
    /// Whether a dedicated RPC was answered with UNIMPLEMENTED: then StateChange for good.
    only_state_change: AtomicBool,
}

impl PluginHandle {
    pub(super) fn start(
        socket: UnixStream,
        version: Version,
        behaviour: Behaviour,
    ) -> (Self, mpsc::UnboundedReceiver<Incoming>) {
        let (wire, calls) = Wire::start(socket);
        let plugin = Self(Arc::new(Inner {
            wire,
            version,
            behaviour,
            name: OnceLock::new(),
            events: AtomicU32::new(0),
            only_state_change: AtomicBool::new(false),
        }));
        (plugin, calls)
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    pub(super) fn version(&self) -> Version {
        self.0.version
    }

    pub(super) fn behaviour(&self) -> &Behaviour {
        &self.0.behaviour
    }

    pub(super) fn set_name(&self, name: String) {
        let _ = self.0.name.set(name);
    }

    pub(super) fn subscribe(&self, events: u32) {
        self.0.events.store(events, Ordering::SeqCst);
    }

    pub(super) fn close(&self, why: &str) {
        self.0.wire.close(why);
    }

    /// Index and name, such as `10-volumes`.
    pub fn name(&self) -> &str {
        self.0.name.get().map_or("", String::as_str)
    }

    /// The events that it has asked for, as sent.
    pub fn events(&self) -> u32 {
        self.0.events.load(Ordering::SeqCst)
    }

    /// Whether events still reach it; where they do not, containers are created without it.
    pub fn is_connected(&self) -> bool {
        self.why_closed().is_none()
    }

    /// Why it was dropped.
    pub fn why_closed(&self) -> Option<String> {
        self.0.wire.why_closed()
    }

    /// Waits until it is dropped or gone, and says why.
    pub async fn wait_closed(&self) -> String {
        self.0.wire.wait_closed().await
    }

    /// Whether StateChange has replaced the dedicated RPCs for it.
    pub fn fell_back_to_state_change(&self) -> bool {
        self.0.only_state_change.load(Ordering::SeqCst)
    }

    pub(super) async fn request<M: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<M, CallError> {
        let within = self.0.behaviour.request_timeout;
        let wire = &self.0.wire;
        let answer = wire.call(SERVICE, method, request.encode_to_vec(), within);
        let answer = answer.await?;
        M::decode(&*answer).map_err(|e| {
            let message = format!("cannot read the answer of {method}: {e}");
            CallError::Refused(Status { code: 13, message })
        })
    }

    /// A request as the runtimes relay it: one that the plugin does not answer
    /// in time costs it the connection, and things go on without it.
    async fn relay<M: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<M, Status> {
        match self.request(method, request).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(status)) => Err(status),
            Err(CallError::Closed) => Ok(M::default()),
            Err(CallError::TimedOut) => {
                self.close(&format!("failed to handle {method}: deadline exceeded"));
                Ok(M::default())
            }
        }
    }

    fn is_subscribed(&self, event: Event) -> bool {
        self.events() & (1 << (event as u32 - 1)) != 0
    }

    /// Any notification, by its own RPC or by StateChange as the version has it.
    pub async fn notify(
        &self,
        event: Event,
        pod: PodSandbox,
        container: Option<Container>,
    ) -> Result<(), Status> {
        if !self.is_subscribed(event) {
            return Ok(());
        }
        let always_had_rpc = matches!(
            event,
            Event::StopContainer | Event::UpdateContainer | Event::UpdatePodSandbox
        );
        let has_rpc = self.0.version.has_rpc_per_event() && !self.fell_back_to_state_change();
        if always_had_rpc || has_rpc {
            let request = CreateContainerRequest {
                pod: Some(pod.clone()),
                container: container.clone(),
            };
            match self.relay::<Empty>(method_of(event), &request).await {
                Err(status) if status.code == UNIMPLEMENTED && !always_had_rpc => {
                    self.0.only_state_change.store(true, Ordering::SeqCst);
                }
                answer => return answer.map(drop),
            }
        }
        self.state_change(event as i32, Some(pod), container).await
    }

    /// StateChange with any number, known or not.
    pub async fn state_change(
        &self,
        event: i32,
        pod: Option<PodSandbox>,
        container: Option<Container>,
    ) -> Result<(), Status> {
        let change = StateChangeEvent {
            event,
            pod,
            container,
        };
        self.relay::<Empty>("StateChange", &change).await.map(drop)
    }

    /// A sandbox has started.
    pub async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Status> {
        self.notify(Event::RunPodSandbox, pod, None).await
    }

    /// A sandbox was stopped.
    pub async fn stop_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Status> {
        self.notify(Event::StopPodSandbox, pod, None).await
    }

    /// A sandbox was removed.
    pub async fn remove_pod_sandbox(&self, pod: PodSandbox) -> Result<(), Status> {
        self.notify(Event::RemovePodSandbox, pod, None).await
    }

    /// A container is to be created. Without the plugin it is created unadjusted.
    pub async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment, Status> {
        if !self.is_subscribed(Event::CreateContainer) {
            return Ok(ContainerAdjustment::default());
        }
        let request = CreateContainerRequest {
            pod: Some(pod),
            container: Some(container),
        };
        let answer = self.relay::<CreateContainerResponse>("CreateContainer", &request);
        Ok(answer.await?.adjust.unwrap_or_default())
    }

    /// A container was created.
    pub async fn post_create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), Status> {
        self.notify(Event::PostCreateContainer, pod, Some(container))
            .await
    }

    /// A container is about to start.
    pub async fn start_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), Status> {
        self.notify(Event::StartContainer, pod, Some(container))
            .await
    }

    /// A container has started.
    pub async fn post_start_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), Status> {
        self.notify(Event::PostStartContainer, pod, Some(container))
            .await
    }

    /// A container has stopped.
    pub async fn stop_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), Status> {
        self.notify(Event::StopContainer, pod, Some(container))
            .await
    }

    /// A container was removed.
    pub async fn remove_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), Status> {
        self.notify(Event::RemoveContainer, pod, Some(container))
            .await
    }

    /// Asks whether an adjustment is accepted, whatever the plugin subscribed to.
    pub async fn validate_container_adjustment(
        &self,
        request: ValidateContainerAdjustmentRequest,
    ) -> Result<ValidateContainerAdjustmentResponse, Status> {
        self.relay("ValidateContainerAdjustment", &request).await
    }

    /// A call of any service and method with any payload, and no consequences.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        let within = self.0.behaviour.request_timeout;
        match self.0.wire.call(service, method, payload, within).await {
            Ok(payload) => Ok(payload),
            Err(CallError::Refused(status)) => Err(status),
            Err(CallError::Closed) => panic!("the plugin is gone: {:?}", self.why_closed()),
            Err(CallError::TimedOut) => panic!("{method} was not answered"),
        }
    }

    /// Bytes of a connection id, as one frame.
    pub async fn send_frame(&self, id: u32, payload: &[u8]) {
        self.send_bytes(&frame(id, payload)).await;
    }

    /// Bytes on the connection that the plugin serves, as one frame.
    pub async fn send_to_plugin(&self, payload: &[u8]) {
        self.send_frame(PLUGIN, payload).await;
    }

    /// Bytes below all framing.
    pub async fn send_bytes(&self, bytes: &[u8]) {
        let _ = self.0.wire.send_bytes(bytes).await;
    }
}

fn method_of(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => panic!("not an event"),
    }
}
