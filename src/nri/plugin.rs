// SPDX-License-Identifier: Apache-2.0
//! What the rest of the house implements to be an NRI plugin.

use std::time::Duration;

use tokio::time::Instant;

use super::EventMask;
use crate::{
    error::{Error, Result},
    proto::nri::{Container, ContainerAdjustment, PodSandbox},
};

/// What a runtime says about itself in Configure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Its name, such as `containerd`.
    pub name: String,
    /// Its version, in its own spelling.
    pub version: String,
    /// The NRI version it speaks; empty where it does not say (before 0.12).
    pub nri_version: String,
    /// How long it waits for the answer to one request before it drops the plugin.
    pub request_timeout: Duration,
    /// How long it waits for a plugin to register.
    pub registration_timeout: Duration,
}

/// A plugin. One session at a time calls it, and the calls come in the order in
/// which the runtime made them.
///
/// All methods but `create_container` must return at once: the runtime holds a
/// node-wide lock until they are answered, which is always with OK. The runtime
/// goes on whatever a plugin answers to them, and an error would only keep the
/// event from the plugins called after this one.
///
/// Events are hints: some are never relayed (nothing is replayed after a lost
/// connection), and every one may come for an id that is unknown.
pub trait Plugin: Send + Sync + 'static {
    /// The events it wants; those that the runtime does not know are left out.
    fn events(&self) -> EventMask;

    /// The runtime has introduced itself.
    fn configured(&self, runtime: RuntimeInfo);

    /// Everything that exists now, once in a session: the parts of a split
    /// state are put together first.
    fn synchronized(&self, pods: Vec<PodSandbox>, containers: Vec<Container>);

    /// A sandbox is up.
    fn run_pod_sandbox(&self, pod: PodSandbox);

    /// A container is about to be created; an error fails its creation.
    ///
    /// The future is polled for the first time in the order of events, then runs
    /// beside later ones: a stop of the same container may be told while it
    /// still runs. It is dropped at the deadline (which leaves time to answer
    /// the runtime in time) and when the session ends, and the creation is then
    /// refused: it must be safe to drop at any await.
    fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
        deadline: Instant,
    ) -> impl Future<Output = Result<ContainerAdjustment>> + Send;

    /// A container is created.
    fn post_create_container(&self, pod: PodSandbox, container: Container);

    /// A container is about to start; its mounts are made.
    fn start_container(&self, pod: PodSandbox, container: Container);

    /// A container has started.
    fn post_start_container(&self, pod: PodSandbox, container: Container);

    /// A container has stopped or exited, or its creation is undone.
    fn stop_container(&self, pod: PodSandbox, container: Container);

    /// A container is removed.
    fn remove_container(&self, pod: PodSandbox, container: Container);

    /// A sandbox is stopped.
    fn stop_pod_sandbox(&self, pod: PodSandbox);

    /// A sandbox is removed.
    fn remove_pod_sandbox(&self, pod: PodSandbox);

    /// A session in which `configured` was called has ended. Nothing of that
    /// session is called after it.
    fn disconnected(&self, why: &Error);
}
