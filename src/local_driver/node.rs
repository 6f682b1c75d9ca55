// SPDX-License-Identifier: Apache-2.0
//! The Node service.

use std::path::PathBuf;

use tonic::{Request, Response, Status};

use super::{LocalDriver, check, mounts, stats};
use crate::proto::csi::{
    self as wire, node_server::Node, node_service_capability,
    node_service_capability::rpc::Type as Rpc, volume_capability::access_mode::Mode,
};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Node for LocalDriver {
    async fn node_get_capabilities(
        &self,
        _: Request<wire::NodeGetCapabilitiesRequest>,
    ) -> Answer<wire::NodeGetCapabilitiesResponse> {
        let capabilities = [
            Rpc::StageUnstageVolume,
            Rpc::SingleNodeMultiWriter,
            Rpc::GetVolumeStats,
        ]
        .map(|rpc| wire::NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(
                node_service_capability::Rpc { r#type: rpc.into() },
            )),
        });
        Ok(Response::new(wire::NodeGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<wire::NodeGetInfoRequest>,
    ) -> Answer<wire::NodeGetInfoResponse> {
        Ok(Response::new(wire::NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            ..Default::default()
        }))
    }

    async fn node_stage_volume(
        &self,
        request: Request<wire::NodeStageVolumeRequest>,
    ) -> Answer<wire::NodeStageVolumeResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        let staging = check::path("staging_target_path", &request.staging_target_path)?;
        let mode = check::capability(request.volume_capability.as_ref())?;
        self.on_volume(&id.clone(), move |store| {
            mounts::stage(store, &id, &staging, mode)
        })
        .await?;
        Ok(Response::new(wire::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<wire::NodeUnstageVolumeRequest>,
    ) -> Answer<wire::NodeUnstageVolumeResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        let staging = check::path("staging_target_path", &request.staging_target_path)?;
        self.on_volume(&id.clone(), move |store| {
            mounts::unstage(store, &id, &staging)
        })
        .await?;
        Ok(Response::new(wire::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<wire::NodePublishVolumeRequest>,
    ) -> Answer<wire::NodePublishVolumeResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        let target = check::path("target_path", &request.target_path)?;
        let mode = check::capability(request.volume_capability.as_ref())?;
        if request.staging_target_path.is_empty() {
            return Err(Status::failed_precondition(
                "staging_target_path is missing: stage the volume first and say where",
            ));
        }
        let wanted = mounts::Publish {
            staging: check::path("staging_target_path", &request.staging_target_path)?,
            target,
            mode,
            read_only: request.readonly || mode == Mode::SingleNodeReaderOnly,
        };
        self.on_volume(&id.clone(), move |store| {
            mounts::publish(store, &id, &wanted)
        })
        .await?;
        Ok(Response::new(wire::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<wire::NodeUnpublishVolumeRequest>,
    ) -> Answer<wire::NodeUnpublishVolumeResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        let target = check::path("target_path", &request.target_path)?;
        self.on_volume(&id.clone(), move |store| {
            mounts::unpublish(store, &id, &target)
        })
        .await?;
        Ok(Response::new(wire::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<wire::NodeGetVolumeStatsRequest>,
    ) -> Answer<wire::NodeGetVolumeStatsResponse> {
        let request = request.get_ref();
        let id = check::text("volume_id", &request.volume_id)?.to_owned();
        // A path that can not be a target is one where the volume is not: csi-sanity
        // asks for that answer.
        let path = PathBuf::from(check::required("volume_path", &request.volume_path)?);
        let usage = self
            .on_volume(&id.clone(), move |store| stats::usage(store, &id, &path))
            .await?;
        Ok(Response::new(wire::NodeGetVolumeStatsResponse {
            usage,
            volume_condition: None,
        }))
    }

    async fn node_expand_volume(
        &self,
        _: Request<wire::NodeExpandVolumeRequest>,
    ) -> Answer<wire::NodeExpandVolumeResponse> {
        Err(Status::unimplemented(
            "the local driver does not do NodeExpandVolume",
        ))
    }
}
