// SPDX-License-Identifier: Apache-2.0
//! The three services on the wire.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actor_volumes::proto::csi::{
    self as wire,
    controller_server::Controller,
    controller_service_capability::{self as controller, rpc::Type as ControllerType},
    identity_server::Identity,
    node_server::Node,
    node_service_capability::{self as node, rpc::Type as NodeType},
    plugin_capability::{self as plugin, Service, service},
};
use tonic::{Request, Response, Status};

use super::{
    Options, Shared, lock,
    model::{Model, Refused, id_of},
};

type Answer<T> = Result<Response<T>, Status>;

/// One call whose caller still waits.
struct Open {
    shared: Arc<Shared>,
    volume: String,
    call: Arc<OpenCall>,
}

/// What is known of such a call.
#[derive(Default)]
pub(super) struct OpenCall {
    answered: AtomicBool,
    /// Calls on the same volume that came meanwhile, and when.
    joined: Mutex<Vec<(Instant, String)>>,
}

/// A caller that gives up and calls again at once may be heard in the other
/// order: so long the end of its first call may be late.
const LATE: Duration = Duration::from_millis(250);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(calls) = lock(&self.shared.open).get_mut(&self.volume) {
            calls.retain(|c| !Arc::ptr_eq(c, &self.call));
        }
        let answered = self.call.answered.load(Ordering::Relaxed);
        for (at, text) in lock(&self.call.joined).drain(..) {
            if answered || at.elapsed() > LATE {
                self.shared.violation(text);
            }
        }
    }
}

/// One call that is worked on.
struct Busy(Arc<Shared>, String);

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.0.busy).remove(&self.1);
    }
}

impl Shared {
    /// The road of every call. Like many drivers, it goes on when the caller
    /// has stopped to wait.
    async fn serve<T: Send + 'static>(
        self: &Arc<Self>,
        (method, volume, path): (&'static str, &str, &str),
        act: impl FnOnce(&Options, &mut Model) -> Result<T, Refused> + Send + 'static,
    ) -> Answer<T> {
        let seq = self.arrived(method, volume, path);
        let open = self.opened(method, volume);
        let (shared, volume) = (self.clone(), volume.to_owned());
        let body = tokio::spawn(async move {
            let result = shared.clone().body(method, volume, act).await;
            let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
            shared.answered(seq, code);
            result
        });
        let done = body.await.map_err(|e| Status::internal(e.to_string()))?;
        open.call.answered.store(true, Ordering::Relaxed);
        done.map(Response::new)
    }

    /// A caller has at most one call in flight for a volume.
    fn opened(self: &Arc<Self>, method: &str, volume: &str) -> Open {
        let call = Arc::<OpenCall>::default();
        if !volume.is_empty() {
            let mut open = lock(&self.open);
            let calls = open.entry(volume.into()).or_default();
            for other in calls.iter() {
                let text =
                    format!("{method} {volume} while another call on the volume is in flight");
                lock(&other.joined).push((Instant::now(), text));
            }
            calls.push(call.clone());
        }
        Open {
            shared: self.clone(),
            volume: volume.into(),
            call,
        }
    }

    async fn body<T>(
        self: Arc<Self>,
        method: &'static str,
        volume: String,
        act: impl FnOnce(&Options, &mut Model) -> Result<T, Refused>,
    ) -> Result<T, Status> {
        if !volume.is_empty() && !lock(&self.busy).insert(volume.clone()) {
            return Err(Status::aborted("a call on this volume is under way"));
        }
        let _busy = Busy(self.clone(), volume);
        let fault = lock(&self.faults).take(method)?;
        tokio::time::sleep(fault.delay).await;
        while lock(&self.faults).peek(method)?.hang {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(code) = fault.fail {
            return Err(Status::new(code, "this call fails because it was told to"));
        }
        let options = self.options();
        let result = {
            let mut model = lock(&self.model);
            let result = act(&options, &mut model);
            model.save(&options.backend);
            result
        };
        let done = result.map_err(|r| r.into_status(|text| self.violation(text)))?;
        if fault.lose_answer {
            return Err(Status::unavailable("the answer was lost"));
        }
        Ok(done)
    }

    /// A call about no volume.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        method: &'static str,
        answer: impl FnOnce(&Options) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T> {
        self.serve((method, "", ""), move |options, _| {
            answer(options).map_err(Refused::Trouble)
        })
        .await
    }
}

/// The three services of one driver.
#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Shared>);

impl std::ops::Deref for Services {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented("this driver does not do that"))
}

#[tonic::async_trait]
impl Identity for Services {
    async fn get_plugin_info(
        &self,
        _: Request<wire::GetPluginInfoRequest>,
    ) -> Answer<wire::GetPluginInfoResponse> {
        self.ask("GetPluginInfo", |options| {
            Ok(wire::GetPluginInfoResponse {
                name: options.name.clone(),
                vendor_version: options.version.clone(),
                ..Default::default()
            })
        })
        .await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<wire::GetPluginCapabilitiesRequest>,
    ) -> Answer<wire::GetPluginCapabilitiesResponse> {
        self.ask("GetPluginCapabilities", |_| {
            Ok(wire::GetPluginCapabilitiesResponse {
                capabilities: vec![wire::PluginCapability {
                    r#type: Some(plugin::Type::Service(Service {
                        r#type: service::Type::ControllerService.into(),
                    })),
                }],
            })
        })
        .await
    }

    async fn probe(&self, _: Request<wire::ProbeRequest>) -> Answer<wire::ProbeResponse> {
        let shared = self.0.clone();
        self.ask("Probe", move |_| {
            let ready = lock(&shared.faults).ready;
            // "Ready" may be left out; only the opposite has to be said.
            Ok(wire::ProbeResponse {
                ready: (!ready).then_some(false),
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl Controller for Services {
    async fn controller_get_capabilities(
        &self,
        _: Request<wire::ControllerGetCapabilitiesRequest>,
    ) -> Answer<wire::ControllerGetCapabilitiesResponse> {
        self.ask("ControllerGetCapabilities", |options| {
            let all = [
                (options.create, ControllerType::CreateDeleteVolume),
                (options.attach, ControllerType::PublishUnpublishVolume),
                (
                    options.controller_single_node_modes,
                    ControllerType::SingleNodeMultiWriter,
                ),
            ];
            let had = all.into_iter().filter(|(has, _)| *has);
            let capabilities = had.map(|(_, rpc)| wire::ControllerServiceCapability {
                r#type: Some(controller::Type::Rpc(controller::Rpc {
                    r#type: rpc.into(),
                })),
            });
            Ok(wire::ControllerGetCapabilitiesResponse {
                capabilities: capabilities.collect(),
            })
        })
        .await
    }

    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Answer<wire::CreateVolumeResponse> {
        let request = request.into_inner();
        let id = id_of(&request.name);
        self.serve(("CreateVolume", &id, ""), move |options, model| {
            let volume = Some(model.create(options, &request)?);
            Ok(wire::CreateVolumeResponse { volume })
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Answer<wire::DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.serve(("DeleteVolume", &id.clone(), ""), move |options, model| {
            model.delete(options, &id)?;
            Ok(wire::DeleteVolumeResponse {})
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<wire::ControllerPublishVolumeRequest>,
    ) -> Answer<wire::ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id.clone(), request.node_id.clone());
        self.serve(
            ("ControllerPublishVolume", &id, &node),
            move |options, model| {
                let publish_context = model.attach(options, &request)?;
                Ok(wire::ControllerPublishVolumeResponse { publish_context })
            },
        )
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<wire::ControllerUnpublishVolumeRequest>,
    ) -> Answer<wire::ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id.clone(), request.node_id.clone());
        self.serve(
            ("ControllerUnpublishVolume", &id, &node),
            move |_, model| {
                model.detach(&request.volume_id, &request.node_id)?;
                Ok(wire::ControllerUnpublishVolumeResponse {})
            },
        )
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<wire::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<wire::ValidateVolumeCapabilitiesResponse> {
        absent()
    }

    async fn list_volumes(
        &self,
        _: Request<wire::ListVolumesRequest>,
    ) -> Answer<wire::ListVolumesResponse> {
        absent()
    }

    async fn get_capacity(
        &self,
        _: Request<wire::GetCapacityRequest>,
    ) -> Answer<wire::GetCapacityResponse> {
        absent()
    }

    async fn create_snapshot(
        &self,
        _: Request<wire::CreateSnapshotRequest>,
    ) -> Answer<wire::CreateSnapshotResponse> {
        absent()
    }

    async fn delete_snapshot(
        &self,
        _: Request<wire::DeleteSnapshotRequest>,
    ) -> Answer<wire::DeleteSnapshotResponse> {
        absent()
    }

    async fn list_snapshots(
        &self,
        _: Request<wire::ListSnapshotsRequest>,
    ) -> Answer<wire::ListSnapshotsResponse> {
        absent()
    }

    async fn controller_expand_volume(
        &self,
        _: Request<wire::ControllerExpandVolumeRequest>,
    ) -> Answer<wire::ControllerExpandVolumeResponse> {
        absent()
    }

    async fn controller_get_volume(
        &self,
        _: Request<wire::ControllerGetVolumeRequest>,
    ) -> Answer<wire::ControllerGetVolumeResponse> {
        absent()
    }
}

#[tonic::async_trait]
impl Node for Services {
    async fn node_get_capabilities(
        &self,
        _: Request<wire::NodeGetCapabilitiesRequest>,
    ) -> Answer<wire::NodeGetCapabilitiesResponse> {
        self.ask("NodeGetCapabilities", |options| {
            if !options.node_service {
                return Err(Status::unimplemented("no Node service"));
            }
            let all = [
                (options.stage, NodeType::StageUnstageVolume),
                (
                    options.node_single_node_modes,
                    NodeType::SingleNodeMultiWriter,
                ),
            ];
            let had = all.into_iter().filter(|(has, _)| *has);
            let capabilities = had.map(|(_, rpc)| wire::NodeServiceCapability {
                r#type: Some(node::Type::Rpc(node::Rpc { r#type: rpc.into() })),
            });
            Ok(wire::NodeGetCapabilitiesResponse {
                capabilities: capabilities.collect(),
            })
        })
        .await
    }

    async fn node_get_info(
        &self,
        _: Request<wire::NodeGetInfoRequest>,
    ) -> Answer<wire::NodeGetInfoResponse> {
        self.ask("NodeGetInfo", |options| {
            Ok(wire::NodeGetInfoResponse {
                node_id: options.node_id.clone(),
                ..Default::default()
            })
        })
        .await
    }

    async fn node_stage_volume(
        &self,
        request: Request<wire::NodeStageVolumeRequest>,
    ) -> Answer<wire::NodeStageVolumeResponse> {
        let request = request.into_inner();
        let (id, path) = (
            request.volume_id.clone(),
            request.staging_target_path.clone(),
        );
        self.serve(("NodeStageVolume", &id, &path), move |options, model| {
            model.stage(options, &request)?;
            Ok(wire::NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<wire::NodeUnstageVolumeRequest>,
    ) -> Answer<wire::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        let (id, path) = (
            request.volume_id.clone(),
            request.staging_target_path.clone(),
        );
        self.serve(("NodeUnstageVolume", &id, &path), move |options, model| {
            model.unstage(options, &request.volume_id, &request.staging_target_path)?;
            Ok(wire::NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<wire::NodePublishVolumeRequest>,
    ) -> Answer<wire::NodePublishVolumeResponse> {
        let request = request.into_inner();
        let (id, path) = (request.volume_id.clone(), request.target_path.clone());
        self.serve(("NodePublishVolume", &id, &path), move |options, model| {
            model.publish(options, &request)?;
            Ok(wire::NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<wire::NodeUnpublishVolumeRequest>,
    ) -> Answer<wire::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        let (id, path) = (request.volume_id.clone(), request.target_path.clone());
        self.serve(
            ("NodeUnpublishVolume", &id, &path),
            move |options, model| {
                model.unpublish(options, &request.volume_id, &request.target_path)?;
                Ok(wire::NodeUnpublishVolumeResponse {})
            },
        )
        .await
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<wire::NodeGetVolumeStatsRequest>,
    ) -> Answer<wire::NodeGetVolumeStatsResponse> {
        absent()
    }

    async fn node_expand_volume(
        &self,
        _: Request<wire::NodeExpandVolumeRequest>,
    ) -> Answer<wire::NodeExpandVolumeResponse> {
        absent()
    }
}
