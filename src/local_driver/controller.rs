// SPDX-License-Identifier: Apache-2.0
//! The Controller service.

use tonic::{Request, Response, Status};

use super::{
    LocalDriver, check,
    store::{Store, VolumeRecord},
};
use crate::proto::csi::{
    self as wire, controller_server::Controller, controller_service_capability,
    controller_service_capability::rpc::Type as Rpc,
};

type Answer<T> = Result<Response<T>, Status>;

fn not_advertised<T>(rpc: &str) -> Answer<T> {
    Err(Status::unimplemented(format!(
        "the local driver does not do {rpc}"
    )))
}

#[tonic::async_trait]
impl Controller for LocalDriver {
    async fn controller_get_capabilities(
        &self,
        _: Request<wire::ControllerGetCapabilitiesRequest>,
    ) -> Answer<wire::ControllerGetCapabilitiesResponse> {
        let capabilities = [
            Rpc::CreateDeleteVolume,
            Rpc::GetCapacity,
            Rpc::ExpandVolume,
            Rpc::SingleNodeMultiWriter,
        ]
        .map(|rpc| wire::ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(
                controller_service_capability::Rpc { r#type: rpc.into() },
            )),
        });
        Ok(Response::new(wire::ControllerGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Answer<wire::CreateVolumeResponse> {
        let request = request.into_inner();
        let name = check::text("name", &request.name)?;
        check::capabilities(&request.volume_capabilities)?;
        check::parameters(&request.parameters)?;
        check::parameters(&request.mutable_parameters)?;
        if request.volume_content_source.is_some() {
            return Err(Status::invalid_argument(
                "volume_content_source is not supported: leave it out",
            ));
        }
        let record = VolumeRecord::new(name, check::capacity(request.capacity_range.as_ref())?);
        let volume_id = Store::id_of(name);
        let capacity_bytes = self
            .on_volume(&volume_id, move |store| store.create(&record))
            .await?;
        Ok(Response::new(wire::CreateVolumeResponse {
            volume: Some(wire::Volume {
                volume_id,
                capacity_bytes,
                ..Default::default()
            }),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Answer<wire::DeleteVolumeResponse> {
        let id = check::text("volume_id", &request.get_ref().volume_id)?.to_owned();
        self.on_volume(&id.clone(), move |store| store.delete(&id))
            .await?;
        Ok(Response::new(wire::DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<wire::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<wire::ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities are missing"));
        }
        self.on_volume(&id.clone(), move |store| store.load(&id))
            .await?;
        let unfit = check::capabilities(&request.volume_capabilities)
            .and_then(|()| check::parameters(&request.parameters))
            .and_then(|()| check::parameters(&request.mutable_parameters));
        Ok(Response::new(match unfit {
            Ok(()) => wire::ValidateVolumeCapabilitiesResponse {
                confirmed: Some(wire::validate_volume_capabilities_response::Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            },
            Err(why) => wire::ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message: why.message().into(),
            },
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<wire::GetCapacityRequest>,
    ) -> Answer<wire::GetCapacityResponse> {
        let request = request.get_ref();
        let fits = request
            .volume_capabilities
            .iter()
            .all(|c| check::capability(Some(c)).is_ok())
            && request.parameters.is_empty();
        let available_capacity = if fits {
            let store = self.store.clone();
            tokio::task::spawn_blocking(move || store.free_bytes())
                .await
                .map_err(|e| Status::internal(e.to_string()))?
                .map_err(|e| Status::internal(e.full_message()))?
        } else {
            0
        };
        Ok(Response::new(wire::GetCapacityResponse {
            available_capacity,
            ..Default::default()
        }))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<wire::ControllerPublishVolumeRequest>,
    ) -> Answer<wire::ControllerPublishVolumeResponse> {
        not_advertised("ControllerPublishVolume")
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<wire::ControllerUnpublishVolumeRequest>,
    ) -> Answer<wire::ControllerUnpublishVolumeResponse> {
        not_advertised("ControllerUnpublishVolume")
    }

    async fn list_volumes(
        &self,
        _: Request<wire::ListVolumesRequest>,
    ) -> Answer<wire::ListVolumesResponse> {
        not_advertised("ListVolumes")
    }

    async fn create_snapshot(
        &self,
        _: Request<wire::CreateSnapshotRequest>,
    ) -> Answer<wire::CreateSnapshotResponse> {
        not_advertised("CreateSnapshot")
    }

    async fn delete_snapshot(
        &self,
        _: Request<wire::DeleteSnapshotRequest>,
    ) -> Answer<wire::DeleteSnapshotResponse> {
        not_advertised("DeleteSnapshot")
    }

    async fn list_snapshots(
        &self,
        _: Request<wire::ListSnapshotsRequest>,
    ) -> Answer<wire::ListSnapshotsResponse> {
        not_advertised("ListSnapshots")
    }

    async fn controller_expand_volume(
        &self,
        request: Request<wire::ControllerExpandVolumeRequest>,
    ) -> Answer<wire::ControllerExpandVolumeResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument("capacity_range is missing"));
        }
        if request.volume_capability.is_some() {
            check::capability(request.volume_capability.as_ref())?;
        }
        let range = check::capacity(request.capacity_range.as_ref())?;
        let capacity_bytes = self
            .on_volume(&id.clone(), move |store| store.expand(&id, range))
            .await?;
        Ok(Response::new(wire::ControllerExpandVolumeResponse {
            capacity_bytes,
            // The size is a note: nothing on a node has to grow.
            node_expansion_required: false,
        }))
    }

    async fn controller_get_volume(
        &self,
        _: Request<wire::ControllerGetVolumeRequest>,
    ) -> Answer<wire::ControllerGetVolumeResponse> {
        not_advertised("ControllerGetVolume")
    }
}
