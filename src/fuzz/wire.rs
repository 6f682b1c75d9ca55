// SPDX-License-Identifier: Apache-2.0
//! Frames and messages of runtimes and drivers.

use std::{collections::BTreeMap, time::Duration};

use prost::Message;
use tokio::time::Instant;

use super::{block_on, pieces};
use crate::{
    api::annotation,
    delivery,
    error::{Error, Result},
    nri::{self, EventMask, Plugin, RuntimeInfo, mux, ttrpc},
    nri_plugin::{container_view, sandbox_view},
    proto::nri::{Container, ContainerAdjustment, PodSandbox},
};

pub(super) fn nri_mux(bytes: &[u8]) {
    if let Ok(streams) = mux::decode(bytes) {
        let mut written = Vec::new();
        for (id, content) in &streams {
            mux::encode(*id, content, &mut written);
        }
        let whole: BTreeMap<_, _> = streams.into_iter().filter(|(_, c)| !c.is_empty()).collect();
        let again = mux::decode(&written).expect("what was written can be read");
        assert_eq!(again, whole);
    }
}

pub(super) fn nri_ttrpc(bytes: &[u8]) {
    let _ = ttrpc::decode(bytes);
}

/// Pieces, each a request: its method, and its payload.
pub(super) fn nri_messages(bytes: &[u8]) {
    const METHODS: [&str; 14] = [
        "Configure",
        "Synchronize",
        "CreateContainer",
        "StateChange",
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopContainer",
        "RemoveContainer",
        "UpdateContainer",
        "Unknown",
    ];
    let pieces = pieces(bytes);
    let requests: Vec<_> = pieces
        .into_iter()
        .map(|(method, payload)| (METHODS[usize::from(method) % METHODS.len()], payload))
        .collect();
    block_on(nri::answer_all(Reader, &requests));
}

/// A plugin that reads all that it is told.
struct Reader;

impl Reader {
    fn read(pod: PodSandbox, container: Option<Container>) -> Result<()> {
        let sandbox = sandbox_view(pod);
        let ours = |all: &BTreeMap<String, String>| annotation::read(all);
        let of_pod = ours(&sandbox.annotations)?;
        let Some(container) = container.map(container_view) else {
            return Ok(());
        };
        let of_container = ours(&container.annotations)?;
        for presented in of_pod.into_iter().chain(of_container) {
            let _ = delivery::volumes_for(&presented.grant, &container.name);
        }
        Ok(())
    }
}

impl Plugin for Reader {
    fn events(&self) -> EventMask {
        EventMask::RUN_POD_SANDBOX | EventMask::CREATE_CONTAINER
    }

    fn configured(&self, runtime: RuntimeInfo) {
        assert!(runtime.request_timeout > Duration::ZERO);
    }

    fn synchronized(&self, pods: Vec<PodSandbox>, _: Vec<Container>) {
        for pod in pods {
            let _ = Self::read(pod, None);
        }
    }

    fn run_pod_sandbox(&self, pod: PodSandbox) {
        let _ = Self::read(pod, None);
    }

    async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
        deadline: Instant,
    ) -> Result<ContainerAdjustment> {
        if deadline <= Instant::now() {
            return Err(Error::deadline("there is no time"));
        }
        Self::read(pod, Some(container)).map(|()| ContainerAdjustment::default())
    }

    fn post_create_container(&self, pod: PodSandbox, container: Container) {
        let _ = Self::read(pod, Some(container));
    }

    fn start_container(&self, _: PodSandbox, _: Container) {}
    fn post_start_container(&self, _: PodSandbox, _: Container) {}
    fn stop_container(&self, _: PodSandbox, _: Container) {}
    fn remove_container(&self, _: PodSandbox, _: Container) {}
    fn stop_pod_sandbox(&self, _: PodSandbox) {}
    fn remove_pod_sandbox(&self, _: PodSandbox) {}
    fn disconnected(&self, _: &Error) {}
}

/// Pieces, each an answer of a driver or of the runtime.
pub(super) fn csi_answers(bytes: &[u8]) {
    use crate::{csi::told, proto::csi};
    for (kind, answer) in pieces(bytes) {
        match kind % 3 {
            0 => {
                if let Ok(list) = csi::ListVolumesResponse::decode(answer) {
                    told::list(list);
                }
            }
            1 => {
                if let Ok(stats) = csi::NodeGetVolumeStatsResponse::decode(answer) {
                    told::stats(stats);
                }
            }
            _ => told::message(&String::from_utf8_lossy(answer)),
        }
    }
}
