// SPDX-License-Identifier: Apache-2.0
//! The Plugin service of one session: its requests, handed to the [`Plugin`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::{sync::watch, time::Instant};
use tracing::{error, warn};

use crate::{
    error::{Error, Result},
    nri::{
        EventMask, Plugin, RuntimeInfo,
        ttrpc::{Answer, Call, Service},
    },
    proto::nri::{
        ConfigureRequest, ConfigureResponse, Container, CreateContainerRequest,
        CreateContainerResponse, Event, PodSandbox, StateChangeEvent, SynchronizeRequest,
        SynchronizeResponse,
    },
};

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// What a runtime means that does not say its timeouts.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a longer one is taken for, so that no sum of times overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The share of the runtime's timeout that is kept back to answer in time.
const MARGIN: f64 = 0.1;

/// How many request timeouts a runtime may pause within a split state.
const SYNC_PATIENCE: u32 = 5;

/// The most that one state may have, all parts together.
const MAX_STATE: usize = 256 << 20;

/// How far the session has come.
#[derive(Clone)]
pub(super) enum Progress {
    New,
    Configured,
    /// A part of the state has come; more must before this time.
    Synchronizing {
        give_up: Instant,
    },
    Synchronized(RuntimeInfo),
    /// The runtime was told, or will see, that this session is of no use.
    Failed(String),
}

pub(super) struct PluginService<P> {
    plugin: Arc<P>,
    progress: watch::Sender<Progress>,
    state: Mutex<State>,
}

/// What one connection has told; gone with it.
#[derive(Default)]
struct State {
    runtime: Option<RuntimeInfo>,
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    bytes: usize,
}

impl<P: Plugin> PluginService<P> {
    pub(super) fn new(plugin: Arc<P>, progress: watch::Sender<Progress>) -> Self {
        Self {
            plugin,
            progress,
            state: Mutex::default(),
        }
    }

    /// Whether the plugin knows of this session.
    pub(super) fn is_configured(&self) -> bool {
        self.state().runtime.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, payload: &[u8]) -> Result<ConfigureResponse> {
        let request: ConfigureRequest = read("Configure", payload)?;
        let runtime = RuntimeInfo {
            request_timeout: timeout(request.request_timeout, DEFAULT_REQUEST_TIMEOUT),
            registration_timeout: timeout(
                request.registration_timeout,
                DEFAULT_REGISTRATION_TIMEOUT,
            ),
            name: request.runtime_name,
            version: request.runtime_version,
            nri_version: request.nri_version,
        };
        let known = EventMask::known_by(&runtime.name, &runtime.version, &runtime.nri_version);
        let events = self.plugin.events() & known;
        // An empty mask would subscribe to everything, the validation that can
        // fail every container included.
        if events.is_empty() {
            return Err(Error::precondition(format!(
                "{} {} knows none of the events that the plugin asks for",
                runtime.name, runtime.version
            )));
        }
        self.state().runtime = Some(runtime.clone());
        guard("Configure", || self.plugin.configured(runtime))?;
        self.progress.send_replace(Progress::Configured);
        Ok(ConfigureResponse {
            events: events.bits(),
        })
    }

    fn synchronize(&self, payload: &[u8]) -> Result<SynchronizeResponse> {
        let request: SynchronizeRequest = read("Synchronize", payload)?;
        let (runtime, whole) = {
            let mut state = self.state();
            let runtime = state.runtime.clone().ok_or_else(|| {
                Error::precondition("the runtime synchronizes a plugin that it never configured")
            })?;
            state.bytes += payload.len();
            if state.bytes > MAX_STATE {
                return Err(Error::exhausted(format!(
                    "the state of the runtime is over the limit of {MAX_STATE} bytes"
                )));
            }
            state.pods.extend(request.pods);
            state.containers.extend(request.containers);
            let whole = (!request.more).then(|| {
                state.bytes = 0;
                let pods = std::mem::take(&mut state.pods);
                (pods, std::mem::take(&mut state.containers))
            });
            (runtime, whole)
        };
        match whole {
            None => {
                let patience = runtime.request_timeout.saturating_mul(SYNC_PATIENCE);
                let give_up = Instant::now() + patience;
                self.progress
                    .send_replace(Progress::Synchronizing { give_up });
            }
            Some((pods, containers)) => {
                guard("Synchronize", || self.plugin.synchronized(pods, containers))?;
                self.progress.send_replace(Progress::Synchronized(runtime));
            }
        }
        // A part is acknowledged with the same `more`, and no update.
        Ok(SynchronizeResponse {
            update: Vec::new(),
            more: request.more,
        })
    }

    /// A request without whose answer the session is of no use: the runtime
    /// drops the plugin on an error, some versions without closing the socket.
    fn essential<M: Message>(&self, answer: Result<M>) -> Answer {
        if let Err(error) = &answer {
            let why = error.full_message();
            self.progress.send_replace(Progress::Failed(why));
        }
        Answer::Now(answer.map(|message| message.encode_to_vec()))
    }

    fn create_container(&self, call: &Call<'_>) -> Result<Answer> {
        let request: CreateContainerRequest = read(call.method, call.payload)?;
        let pod = request.pod.unwrap_or_default();
        let container = request
            .container
            .ok_or_else(|| Error::invalid("CreateContainer without a container"))?;
        let deadline = self.deadline(call.deadline);
        let plugin = Arc::clone(&self.plugin);
        Ok(Answer::Later(Box::pin(async move {
            let create = plugin.create_container(pod, container, deadline);
            // An error is in time; silence would have the runtime drop the
            // plugin and create the container without it.
            let adjust = tokio::time::timeout_at(deadline, create)
                .await
                .map_err(|_| {
                    Error::unavailable("the plugin was not ready in the time of one request: retry")
                })??;
            let response = CreateContainerResponse {
                adjust: Some(adjust),
                ..Default::default()
            };
            Ok(response.encode_to_vec())
        })))
    }

    /// When the plugin must have answered: somewhat before the runtime gives up.
    fn deadline(&self, given: Option<Instant>) -> Instant {
        let now = Instant::now();
        let left = match given {
            Some(deadline) => deadline.saturating_duration_since(now),
            None => {
                let state = self.state();
                let runtime = state.runtime.as_ref();
                runtime.map_or(DEFAULT_REQUEST_TIMEOUT, |r| r.request_timeout)
            }
        };
        now + left.mul_f64(1.0 - MARGIN)
    }

    /// Hands an event over. Whatever comes of it, the runtime hears OK: an error
    /// would keep the event from other plugins and change nothing else.
    fn notify(&self, event: Event, pod: Option<PodSandbox>, container: Option<Container>) {
        let plugin = &*self.plugin;
        let pod = pod.unwrap_or_default();
        let container = container.unwrap_or_default();
        let name = event.as_str_name();
        let told = guard(name, || match event {
            Event::RunPodSandbox => plugin.run_pod_sandbox(pod),
            Event::StopPodSandbox => plugin.stop_pod_sandbox(pod),
            Event::RemovePodSandbox => plugin.remove_pod_sandbox(pod),
            Event::PostCreateContainer => plugin.post_create_container(pod, container),
            Event::StartContainer => plugin.start_container(pod, container),
            Event::PostStartContainer => plugin.post_start_container(pod, container),
            Event::StopContainer => plugin.stop_container(pod, container),
            Event::RemoveContainer => plugin.remove_container(pod, container),
            // Updates change nothing for a plugin like this; the others are no notifications.
            _ => {}
        });
        if let Err(why) = told {
            error!(event = name, %why, "an NRI event was lost");
        }
    }

    fn notify_by_method(&self, event: Event, call: &Call<'_>) -> Answer {
        // The requests of all notifications have the fields of this one.
        match read::<CreateContainerRequest>(call.method, call.payload) {
            Ok(request) => self.notify(event, request.pod, request.container),
            Err(why) => warn!(why = %why.full_message(), "an NRI event was lost"),
        }
        Answer::Now(Ok(Vec::new()))
    }

    fn state_change(&self, call: &Call<'_>) -> Answer {
        match read::<StateChangeEvent>(call.method, call.payload) {
            Ok(change) => {
                // A number that is not known is an event of a later version.
                if let Ok(event) = Event::try_from(change.event) {
                    self.notify(event, change.pod, change.container);
                }
            }
            Err(why) => warn!(why = %why.full_message(), "an NRI event was lost"),
        }
        Answer::Now(Ok(Vec::new()))
    }
}

impl<P: Plugin> Service for PluginService<P> {
    fn call(&self, call: &Call<'_>) -> Answer {
        if call.service != PLUGIN_SERVICE {
            let service = call.service;
            return Answer::Now(Err(Error::unimplemented(format!("no service {service}"))));
        }
        let event = match call.method {
            "Configure" => return self.essential(self.configure(call.payload)),
            "Synchronize" => return self.essential(self.synchronize(call.payload)),
            "CreateContainer" => {
                return self
                    .create_container(call)
                    .unwrap_or_else(|e| Answer::Now(Err(e)));
            }
            "StateChange" => return self.state_change(call),
            // Accepted as they are; the empty message is the answer of each.
            "Shutdown"
            | "UpdatePodSandbox"
            | "PostUpdatePodSandbox"
            | "UpdateContainer"
            | "PostUpdateContainer"
            | "ValidateContainerAdjustment" => return Answer::Now(Ok(Vec::new())),
            "RunPodSandbox" => Event::RunPodSandbox,
            "StopPodSandbox" => Event::StopPodSandbox,
            "RemovePodSandbox" => Event::RemovePodSandbox,
            "PostCreateContainer" => Event::PostCreateContainer,
            "StartContainer" => Event::StartContainer,
            "PostStartContainer" => Event::PostStartContainer,
            "StopContainer" => Event::StopContainer,
            "RemoveContainer" => Event::RemoveContainer,
            // The runtime takes exactly this code for "try StateChange".
            other => return Answer::Now(Err(Error::unimplemented(format!("no method {other}")))),
        };
        self.notify_by_method(event, call)
    }
}

/// The requests of one session, one after the other, without the session.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn answer_all<P: Plugin>(plugin: P, requests: &[(&str, &[u8])]) {
    let (progress, _seen) = watch::channel(Progress::New);
    let service = PluginService::new(Arc::new(plugin), progress);
    for (method, payload) in requests {
        let call = Call {
            service: PLUGIN_SERVICE,
            method,
            payload,
            deadline: None,
        };
        if let Answer::Later(later) = service.call(&call) {
            let _ = later.await;
        }
    }
}

fn read<M: Message + Default>(method: &str, payload: &[u8]) -> Result<M> {
    M::decode(payload)
        .map_err(|e| Error::invalid(format!("cannot read the request of {method}")).with_source(e))
}

fn guard(what: &str, call: impl FnOnce()) -> Result<()> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| Error::internal(format!("the plugin broke while it handled {what}")))
}

fn timeout(millis: i64, default: Duration) -> Duration {
    match u64::try_from(millis) {
        Ok(millis) if millis > 0 => Duration::from_millis(millis).min(LONGEST_TIMEOUT),
        _ => default,
    }
}
