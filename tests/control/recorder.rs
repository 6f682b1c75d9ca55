// SPDX-License-Identifier: Apache-2.0
//! A CSI driver that keeps every request of the Controller service whole, so
//! that tests can look at each field of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use actor_volumes::{
    proto::csi::{
        self as wire,
        controller_server::{Controller, ControllerServer},
        controller_service_capability::{self, rpc::Type as ControllerType},
        identity_server::{Identity, IdentityServer},
        node_server::{Node, NodeServer},
        node_service_capability::{self, rpc::Type as NodeType},
        plugin_capability::{self, service::Type as ServiceType, volume_expansion},
    },
    transport,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

use crate::bench::DRIVER;

/// What the driver says that it can do.
#[derive(Clone, Default)]
pub(crate) struct Abilities {
    pub(crate) controller: Vec<ControllerType>,
    pub(crate) node: Vec<NodeType>,
    /// VolumeExpansion of the plugin: online or not; none: not told.
    pub(crate) online: Option<bool>,
    /// NodeGetInfo; VOLUME_ACCESSIBILITY_CONSTRAINTS where it says something.
    pub(crate) here: BTreeMap<String, String>,
    pub(crate) max_volumes: i64,
    /// What CreateVolume answers as accessible_topology.
    pub(crate) made_at: Vec<BTreeMap<String, String>>,
    pub(crate) node_expansion_required: bool,
    /// Ids do not hold the name of the volume.
    pub(crate) plain_ids: bool,
}

/// A volume of the driver.
#[derive(Clone, Default)]
pub(crate) struct Volume {
    pub(crate) capacity: i64,
    pub(crate) nodes: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) abilities: Abilities,
    pub(crate) volumes: BTreeMap<String, Volume>,
    names: HashMap<String, String>,
    pub(crate) created: Vec<wire::CreateVolumeRequest>,
    pub(crate) deleted: Vec<wire::DeleteVolumeRequest>,
    pub(crate) published: Vec<wire::ControllerPublishVolumeRequest>,
    pub(crate) unpublished: Vec<wire::ControllerUnpublishVolumeRequest>,
    pub(crate) expanded: Vec<wire::ControllerExpandVolumeRequest>,
    /// The RPCs in order of arrival.
    pub(crate) calls: Vec<&'static str>,
    faults: HashMap<&'static str, VecDeque<(Code, bool)>>,
}

#[derive(Clone, Default)]
struct Services(Arc<Mutex<World>>);

/// The driver, until it is dropped.
pub(crate) struct Recorder {
    services: Services,
    _stop: DropGuard,
}

impl Recorder {
    pub(crate) async fn start(socket: &Path, abilities: Abilities) -> Self {
        let services = Services::default();
        services.world().abilities = abilities;
        let incoming = transport::bind(socket).await.unwrap();
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(services.clone()))
            .add_service(ControllerServer::new(services.clone()))
            .add_service(NodeServer::new(services.clone()))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(server);
        Self {
            services,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.services.world()
    }

    /// The next call of this RPC is answered with the code, before it is
    /// carried out or after.
    pub(crate) fn fault(&self, rpc: &'static str, code: Code, carried_out: bool) {
        let mut world = self.world();
        let faults = world.faults.entry(rpc).or_default();
        faults.push_back((code, carried_out));
    }

    /// What was not used up of the faults is forgotten.
    pub(crate) fn clear_faults(&self) {
        self.world().faults.clear();
    }

    pub(crate) fn count(&self, rpc: &str) -> usize {
        self.world().calls.iter().filter(|c| **c == rpc).count()
    }
}

impl Services {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Notes the call, and carries it out as the faults say.
    fn call<T>(
        &self,
        rpc: &'static str,
        effect: impl FnOnce(&mut World) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let mut world = self.world();
        world.calls.push(rpc);
        let fault = world.faults.get_mut(rpc).and_then(VecDeque::pop_front);
        match fault {
            Some((code, false)) => Err(Status::new(code, "told to fail")),
            Some((code, true)) => {
                effect(&mut world)?;
                Err(Status::new(code, "told to fail afterwards"))
            }
            None => effect(&mut world).map(Response::new),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn left_out<T>() -> Answer<T> {
    Err(Status::unimplemented("not of this driver"))
}

#[tonic::async_trait]
impl Identity for Services {
    async fn get_plugin_info(
        &self,
        _: Request<wire::GetPluginInfoRequest>,
    ) -> Answer<wire::GetPluginInfoResponse> {
        Ok(Response::new(wire::GetPluginInfoResponse {
            name: DRIVER.into(),
            vendor_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<wire::GetPluginCapabilitiesRequest>,
    ) -> Answer<wire::GetPluginCapabilitiesResponse> {
        let abilities = self.world().abilities.clone();
        let service = |service: ServiceType| {
            plugin_capability::Type::Service(plugin_capability::Service {
                r#type: service.into(),
            })
        };
        let mut types = vec![service(ServiceType::ControllerService)];
        if !abilities.here.is_empty() {
            types.push(service(ServiceType::VolumeAccessibilityConstraints));
        }
        if let Some(online) = abilities.online {
            let expansion = if online {
                volume_expansion::Type::Online
            } else {
                volume_expansion::Type::Offline
            };
            types.push(plugin_capability::Type::VolumeExpansion(
                plugin_capability::VolumeExpansion {
                    r#type: expansion.into(),
                },
            ));
        }
        let capabilities = types
            .into_iter()
            .map(|t| wire::PluginCapability { r#type: Some(t) })
            .collect();
        Ok(Response::new(wire::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(&self, _: Request<wire::ProbeRequest>) -> Answer<wire::ProbeResponse> {
        Ok(Response::new(wire::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Services {
    async fn controller_get_capabilities(
        &self,
        _: Request<wire::ControllerGetCapabilitiesRequest>,
    ) -> Answer<wire::ControllerGetCapabilitiesResponse> {
        let mut types = self.world().abilities.controller.clone();
        types.push(ControllerType::CreateDeleteVolume);
        let rpc = |t: ControllerType| wire::ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(
                controller_service_capability::Rpc { r#type: t.into() },
            )),
        };
        Ok(Response::new(wire::ControllerGetCapabilitiesResponse {
            capabilities: types.into_iter().map(rpc).collect(),
        }))
    }

    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Answer<wire::CreateVolumeResponse> {
        let request = request.into_inner();
        self.call("CreateVolume", |world| {
            world.created.push(request.clone());
            let next = format!("{}", world.names.len() + 1);
            let id = world.names.entry(request.name.clone()).or_insert_with(|| {
                if world.abilities.plain_ids {
                    next
                } else {
                    format!("pool/{}", request.name)
                }
            });
            let id = id.clone();
            let capacity = request.capacity_range.unwrap_or_default().required_bytes;
            let volume = world.volumes.entry(id.clone()).or_default();
            volume.capacity = volume.capacity.max(capacity);
            let place = |segments: &BTreeMap<String, String>| wire::Topology {
                segments: segments.clone().into_iter().collect(),
            };
            Ok(wire::CreateVolumeResponse {
                volume: Some(wire::Volume {
                    volume_id: id,
                    capacity_bytes: volume.capacity,
                    accessible_topology: world.abilities.made_at.iter().map(place).collect(),
                    ..Default::default()
                }),
            })
        })
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Answer<wire::DeleteVolumeResponse> {
        let request = request.into_inner();
        self.call("DeleteVolume", |world| {
            world.volumes.remove(&request.volume_id);
            world.deleted.push(request);
            Ok(wire::DeleteVolumeResponse::default())
        })
    }

    async fn controller_publish_volume(
        &self,
        request: Request<wire::ControllerPublishVolumeRequest>,
    ) -> Answer<wire::ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        self.call("ControllerPublishVolume", |world| {
            world.published.push(request.clone());
            let count = world.published.len();
            let volume = world.volumes.get_mut(&request.volume_id);
            let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
            volume.nodes.insert(request.node_id);
            Ok(wire::ControllerPublishVolumeResponse {
                publish_context: [("turn".to_owned(), count.to_string())].into(),
            })
        })
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<wire::ControllerUnpublishVolumeRequest>,
    ) -> Answer<wire::ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.call("ControllerUnpublishVolume", |world| {
            if let Some(volume) = world.volumes.get_mut(&request.volume_id) {
                volume.nodes.remove(&request.node_id);
            }
            world.unpublished.push(request);
            Ok(wire::ControllerUnpublishVolumeResponse::default())
        })
    }

    async fn list_volumes(
        &self,
        _: Request<wire::ListVolumesRequest>,
    ) -> Answer<wire::ListVolumesResponse> {
        self.call("ListVolumes", |world| {
            let entry = |(id, volume): (&String, &Volume)| wire::list_volumes_response::Entry {
                volume: Some(wire::Volume {
                    volume_id: id.clone(),
                    capacity_bytes: volume.capacity,
                    ..Default::default()
                }),
                status: Some(wire::list_volumes_response::VolumeStatus {
                    published_node_ids: volume.nodes.iter().cloned().collect(),
                    ..Default::default()
                }),
            };
            Ok(wire::ListVolumesResponse {
                entries: world.volumes.iter().map(entry).collect(),
                ..Default::default()
            })
        })
    }

    async fn controller_expand_volume(
        &self,
        request: Request<wire::ControllerExpandVolumeRequest>,
    ) -> Answer<wire::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        self.call("ControllerExpandVolume", |world| {
            world.expanded.push(request.clone());
            let volume = world.volumes.get_mut(&request.volume_id);
            let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
            if world.abilities.online == Some(false) && !volume.nodes.is_empty() {
                return Err(Status::failed_precondition("in use"));
            }
            volume.capacity = request.capacity_range.unwrap_or_default().required_bytes;
            Ok(wire::ControllerExpandVolumeResponse {
                capacity_bytes: volume.capacity,
                node_expansion_required: world.abilities.node_expansion_required,
            })
        })
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<wire::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<wire::ValidateVolumeCapabilitiesResponse> {
        left_out()
    }

    async fn get_capacity(
        &self,
        _: Request<wire::GetCapacityRequest>,
    ) -> Answer<wire::GetCapacityResponse> {
        left_out()
    }

    async fn create_snapshot(
        &self,
        _: Request<wire::CreateSnapshotRequest>,
    ) -> Answer<wire::CreateSnapshotResponse> {
        left_out()
    }

    async fn delete_snapshot(
        &self,
        _: Request<wire::DeleteSnapshotRequest>,
    ) -> Answer<wire::DeleteSnapshotResponse> {
        left_out()
    }

    async fn list_snapshots(
        &self,
        _: Request<wire::ListSnapshotsRequest>,
    ) -> Answer<wire::ListSnapshotsResponse> {
        left_out()
    }

    async fn controller_get_volume(
        &self,
        _: Request<wire::ControllerGetVolumeRequest>,
    ) -> Answer<wire::ControllerGetVolumeResponse> {
        left_out()
    }
}

#[tonic::async_trait]
impl Node for Services {
    async fn node_get_capabilities(
        &self,
        _: Request<wire::NodeGetCapabilitiesRequest>,
    ) -> Answer<wire::NodeGetCapabilitiesResponse> {
        let types = self.world().abilities.node.clone();
        let rpc = |t: NodeType| wire::NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(
                node_service_capability::Rpc { r#type: t.into() },
            )),
        };
        Ok(Response::new(wire::NodeGetCapabilitiesResponse {
            capabilities: types.into_iter().map(rpc).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<wire::NodeGetInfoRequest>,
    ) -> Answer<wire::NodeGetInfoResponse> {
        let abilities = self.world().abilities.clone();
        let topology = (!abilities.here.is_empty()).then(|| wire::Topology {
            segments: abilities.here.into_iter().collect(),
        });
        Ok(Response::new(wire::NodeGetInfoResponse {
            node_id: "id-a".into(),
            max_volumes_per_node: abilities.max_volumes,
            accessible_topology: topology,
        }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<wire::NodeStageVolumeRequest>,
    ) -> Answer<wire::NodeStageVolumeResponse> {
        left_out()
    }

    async fn node_unstage_volume(
        &self,
        _: Request<wire::NodeUnstageVolumeRequest>,
    ) -> Answer<wire::NodeUnstageVolumeResponse> {
        left_out()
    }

    async fn node_publish_volume(
        &self,
        _: Request<wire::NodePublishVolumeRequest>,
    ) -> Answer<wire::NodePublishVolumeResponse> {
        left_out()
    }

    async fn node_unpublish_volume(
        &self,
        _: Request<wire::NodeUnpublishVolumeRequest>,
    ) -> Answer<wire::NodeUnpublishVolumeResponse> {
        left_out()
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<wire::NodeGetVolumeStatsRequest>,
    ) -> Answer<wire::NodeGetVolumeStatsResponse> {
        left_out()
    }

    async fn node_expand_volume(
        &self,
        _: Request<wire::NodeExpandVolumeRequest>,
    ) -> Answer<wire::NodeExpandVolumeResponse> {
        left_out()
    }
}
