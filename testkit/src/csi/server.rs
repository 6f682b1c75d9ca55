// SPDX-License-Identifier: Apache-2.0
//! The three services on the wire.

mod capabilities;

use std::sync::Arc;

use actor_volumes::proto::csi::{
    self as wire, controller_server::Controller, identity_server::Identity, node_server::Node,
};
use tonic::{Request, Status};

use super::{
    Shared, lock,
    road::{Answer, Ask, Rpc},
    work::Work,
};

/// What one socket serves.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// All of a driver with one socket.
    All,
    /// The controller of a cluster.
    Controller,
    /// The node of this id.
    Node(String),
}

/// The services of one socket.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) shared: Arc<Shared>,
    pub(super) role: Role,
}

impl Services {
    /// The node id of this socket.
    fn here(&self) -> String {
        match &self.role {
            Role::All => lock(&self.shared.options).node_id.clone(),
            Role::Controller => String::new(),
            Role::Node(node) => node.clone(),
        }
    }

    async fn controller<R: Rpc + Sync>(&self, request: Request<R>) -> Answer<R::Reply> {
        let request = request.into_inner();
        self.shared.serve(String::new(), request).await
    }

    async fn node<R: Rpc + Sync>(&self, request: Request<R>) -> Answer<R::Reply> {
        let request = request.into_inner();
        self.shared.serve(self.here(), request).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        method: &'static str,
        answer: impl Fn(&Work) -> Result<T, Status> + Send + Sync + 'static,
    ) -> Answer<T> {
        let question = Ask(method, answer);
        self.shared.serve(self.here(), question).await
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
        self.ask("GetPluginInfo", |work| {
            Ok(wire::GetPluginInfoResponse {
                name: work.options.name.clone(),
                vendor_version: work.options.version.clone(),
                ..Default::default()
            })
        })
        .await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<wire::GetPluginCapabilitiesRequest>,
    ) -> Answer<wire::GetPluginCapabilitiesResponse> {
        self.ask("GetPluginCapabilities", |work| {
            Ok(capabilities::of_plugin(&work.options))
        })
        .await
    }

    async fn probe(&self, _: Request<wire::ProbeRequest>) -> Answer<wire::ProbeResponse> {
        self.ask("Probe", |work| {
            let ready = lock(&work.shared.faults).ready;
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
        self.ask("ControllerGetCapabilities", |work| {
            Ok(capabilities::of_controller(&work.options))
        })
        .await
    }

    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Answer<wire::CreateVolumeResponse> {
        self.controller(request).await
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Answer<wire::DeleteVolumeResponse> {
        self.controller(request).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<wire::ControllerPublishVolumeRequest>,
    ) -> Answer<wire::ControllerPublishVolumeResponse> {
        self.controller(request).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<wire::ControllerUnpublishVolumeRequest>,
    ) -> Answer<wire::ControllerUnpublishVolumeResponse> {
        self.controller(request).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<wire::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<wire::ValidateVolumeCapabilitiesResponse> {
        self.controller(request).await
    }

    async fn list_volumes(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Answer<wire::ListVolumesResponse> {
        self.controller(request).await
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
        request: Request<wire::ControllerExpandVolumeRequest>,
    ) -> Answer<wire::ControllerExpandVolumeResponse> {
        self.controller(request).await
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
        self.ask("NodeGetCapabilities", |work| {
            if !work.options.node_service {
                return Err(Status::unimplemented("no Node service"));
            }
            Ok(capabilities::of_node(&work.options))
        })
        .await
    }

    async fn node_get_info(
        &self,
        _: Request<wire::NodeGetInfoRequest>,
    ) -> Answer<wire::NodeGetInfoResponse> {
        self.ask("NodeGetInfo", |work| {
            let here = work.options.topologies.get(&work.node);
            Ok(work.hostile().node(wire::NodeGetInfoResponse {
                node_id: work.node.clone(),
                max_volumes_per_node: work.options.max_volumes_per_node,
                accessible_topology: here.map(|segments| wire::Topology {
                    segments: segments.clone().into_iter().collect(),
                }),
            }))
        })
        .await
    }

    async fn node_stage_volume(
        &self,
        request: Request<wire::NodeStageVolumeRequest>,
    ) -> Answer<wire::NodeStageVolumeResponse> {
        self.node(request).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<wire::NodeUnstageVolumeRequest>,
    ) -> Answer<wire::NodeUnstageVolumeResponse> {
        self.node(request).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<wire::NodePublishVolumeRequest>,
    ) -> Answer<wire::NodePublishVolumeResponse> {
        self.node(request).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<wire::NodeUnpublishVolumeRequest>,
    ) -> Answer<wire::NodeUnpublishVolumeResponse> {
        self.node(request).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<wire::NodeGetVolumeStatsRequest>,
    ) -> Answer<wire::NodeGetVolumeStatsResponse> {
        self.node(request).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<wire::NodeExpandVolumeRequest>,
    ) -> Answer<wire::NodeExpandVolumeResponse> {
        self.node(request).await
    }
}
