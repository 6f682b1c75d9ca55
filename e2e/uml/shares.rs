// SPDX-License-Identifier: Apache-2.0
//! The controller of the NFS driver, which itself only mounts shares that exist:
//! it makes and removes them, at the server.

use std::{fs, io, path::PathBuf};

use actor_volumes::{
    proto::csi::{
        controller_server::{Controller, ControllerServer},
        controller_service_capability::{self as of_controller, rpc::Type as Rpc},
        identity_server::{Identity, IdentityServer},
        plugin_capability::{self as of_plugin, service::Type as Service},
        *,
    },
    transport,
};
use tonic::{Request, Response, Status, transport::Server};

type Answer<T> = Result<Response<T>, Status>;

/// What the NFS driver's GetPluginInfo answers.
pub(crate) const NAME: &str = "csi-nfsplugin";

/// Shares are directories below one that the server exports as its root.
#[derive(Clone)]
pub(crate) struct Shares {
    pub(crate) exported: PathBuf,
}

impl Shares {
    /// Serves on the socket until the runtime ends.
    pub(crate) async fn serve(self, socket: PathBuf) {
        let incoming = transport::bind(&socket).await.expect("the socket is free");
        let server = Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self));
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    fn share(&self, name: &str) -> Result<PathBuf, Status> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Status::invalid_argument(format!("{name:?} names no share")));
        }
        Ok(self.exported.join(name))
    }
}

fn failed(error: io::Error) -> Status {
    Status::internal(error.to_string())
}

fn not_done<T>() -> Answer<T> {
    Err(Status::unimplemented(
        "shares are made and removed, no more",
    ))
}

#[tonic::async_trait]
impl Identity for Shares {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Answer<GetPluginInfoResponse> {
        Ok(Response::new(GetPluginInfoResponse {
            name: NAME.into(),
            vendor_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        let service = of_plugin::Service {
            r#type: Service::ControllerService.into(),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: vec![PluginCapability {
                r#type: Some(of_plugin::Type::Service(service)),
            }],
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Shares {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let rpc = of_controller::Rpc {
            r#type: Rpc::CreateDeleteVolume.into(),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: vec![ControllerServiceCapability {
                r#type: Some(of_controller::Type::Rpc(rpc)),
            }],
        }))
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<CreateVolumeResponse> {
        let name = request.into_inner().name;
        fs::create_dir_all(self.share(&name)?).map_err(failed)?;
        let context = [
            ("server", "127.0.0.1".into()),
            ("share", format!("/{name}")),
        ];
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(Volume {
                volume_id: name,
                volume_context: context.map(|(k, v)| (k.to_owned(), v)).into(),
                ..Default::default()
            }),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<DeleteVolumeResponse> {
        match fs::remove_dir_all(self.share(&request.get_ref().volume_id)?) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(Response::new(DeleteVolumeResponse {})),
        }
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        not_done()
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        not_done()
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        not_done()
    }

    async fn list_volumes(&self, _: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        not_done()
    }

    async fn get_capacity(&self, _: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        not_done()
    }

    async fn create_snapshot(
        &self,
        _: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        not_done()
    }

    async fn delete_snapshot(
        &self,
        _: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        not_done()
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        not_done()
    }

    async fn controller_expand_volume(
        &self,
        _: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        not_done()
    }

    async fn controller_get_volume(
        &self,
        _: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        not_done()
    }
}
