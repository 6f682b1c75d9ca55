// SPDX-License-Identifier: Apache-2.0
//! What a driver says that it can do, read once per connection.

use tonic::Code;

use super::{
    CallError,
    call::Rpc,
    connection::{Link, rpc},
};
use crate::{
    model::AccessMode,
    proto::csi::{
        ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, NodeGetCapabilitiesRequest,
        controller_client::ControllerClient,
        controller_service_capability::{self, rpc::Type as ControllerType},
        identity_client::IdentityClient,
        node_client::NodeClient,
        node_service_capability::{self, rpc::Type as NodeType},
        plugin_capability::{self, service::Type as ServiceType, volume_expansion},
    },
};

/// What a driver says that it can do (CSI spec: GetPluginCapabilities,
/// ControllerGetCapabilities, NodeGetCapabilities).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// CONTROLLER_SERVICE, and the service is there.
    pub controller: bool,
    /// CONTROLLER_SERVICE is advertised, but this process does not serve it.
    pub controller_elsewhere: bool,
    /// The Node service is there.
    pub node: bool,
    /// VOLUME_ACCESSIBILITY_CONSTRAINTS
    pub topology: bool,
    /// CREATE_DELETE_VOLUME
    pub create_delete: bool,
    /// PUBLISH_UNPUBLISH_VOLUME
    pub controller_publish: bool,
    /// PUBLISH_READONLY
    pub publish_readonly: bool,
    /// EXPAND_VOLUME of the controller
    pub controller_expand: bool,
    /// VolumeExpansion of the plugin: ONLINE, so that a volume may grow while
    /// it is published.
    pub expand_online: bool,
    /// LIST_VOLUMES
    pub list_volumes: bool,
    /// LIST_VOLUMES_PUBLISHED_NODES
    pub list_published_nodes: bool,
    /// SINGLE_NODE_MULTI_WRITER of the controller
    pub controller_single_node_multi_writer: bool,
    /// STAGE_UNSTAGE_VOLUME
    pub stage: bool,
    /// EXPAND_VOLUME of the node
    pub node_expand: bool,
    /// GET_VOLUME_STATS or VOLUME_CONDITION of the node: NodeGetVolumeStats may
    /// be called.
    pub stats: bool,
    /// VOLUME_MOUNT_GROUP
    pub volume_mount_group: bool,
    /// SINGLE_NODE_MULTI_WRITER of the node
    pub node_single_node_multi_writer: bool,
    /// All capabilities that were advertised, in CSI's spelling, for people.
    pub names: Vec<String>,
}

impl Capabilities {
    /// Whether the access modes SINGLE_NODE_SINGLE_WRITER and
    /// SINGLE_NODE_MULTI_WRITER are understood, by both services.
    pub fn single_node_modes(&self) -> bool {
        self.controller_single_node_multi_writer && self.node_single_node_multi_writer
    }

    /// These, with what `other` says of the Node service in the place of ours.
    pub(super) fn with_node_of(&self, other: &Self) -> Self {
        Self {
            node: other.node,
            stage: other.stage,
            node_expand: other.node_expand,
            stats: other.stats,
            volume_mount_group: other.volume_mount_group,
            node_single_node_multi_writer: other.node_single_node_multi_writer,
            ..self.clone()
        }
    }

    /// The mode to ask for where this one is wanted.
    ///
    /// A driver that knows the finer modes is asked for them: one writer, or
    /// many on one node. One that does not is asked for SINGLE_NODE_WRITER, and
    /// the node agent keeps to one workload.
    pub fn resolve(&self, wanted: AccessMode) -> AccessMode {
        match (wanted, self.single_node_modes()) {
            (AccessMode::SingleNodeWriter, true) => AccessMode::SingleNodeMultiWriter,
            (AccessMode::SingleNodeSingleWriter, false) => AccessMode::SingleNodeWriter,
            (wanted, _) => wanted,
        }
    }

    /// Asks all three services.
    ///
    /// A driver may run as two processes, one with the Controller service and
    /// one with the Node service, while both say CONTROLLER_SERVICE: a service
    /// that answers UNIMPLEMENTED is recorded as not there.
    pub(super) async fn read(link: &Link<'_>) -> Result<Self, CallError> {
        let mut found = Self::default();
        found.read_plugin(link).await?;
        if found.controller {
            found.read_controller(link).await?;
        }
        found.read_node(link).await?;
        Ok(found)
    }

    async fn read_plugin(&mut self, link: &Link<'_>) -> Result<(), CallError> {
        const RPC: Rpc = Rpc::plain("GetPluginCapabilities");
        let answer = rpc(link, RPC, |channel| async {
            IdentityClient::new(channel)
                .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
                .await
        })
        .await?;
        for capability in answer.capabilities {
            match capability.r#type {
                Some(plugin_capability::Type::Service(s)) => {
                    match s.r#type() {
                        ServiceType::ControllerService => self.controller = true,
                        ServiceType::VolumeAccessibilityConstraints => self.topology = true,
                        _ => {}
                    }
                    self.note(
                        "",
                        s.r#type,
                        ServiceType::try_from(s.r#type).map(|t| t.as_str_name()),
                    );
                }
                Some(plugin_capability::Type::VolumeExpansion(e)) => {
                    self.expand_online |= e.r#type() == volume_expansion::Type::Online;
                    let name = volume_expansion::Type::try_from(e.r#type).map(|t| t.as_str_name());
                    self.note("VolumeExpansion.", e.r#type, name);
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn read_controller(&mut self, link: &Link<'_>) -> Result<(), CallError> {
        const RPC: Rpc = Rpc::plain("ControllerGetCapabilities");
        let answer = rpc(link, RPC, |channel| async {
            let result = ControllerClient::new(channel)
                .controller_get_capabilities(ControllerGetCapabilitiesRequest {})
                .await;
            absent_as_none(result)
        })
        .await?;
        let Some(answer) = answer else {
            self.controller = false;
            self.controller_elsewhere = true;
            return Ok(());
        };
        for capability in answer.capabilities {
            let Some(controller_service_capability::Type::Rpc(rpc)) = capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                ControllerType::CreateDeleteVolume => self.create_delete = true,
                ControllerType::PublishUnpublishVolume => self.controller_publish = true,
                ControllerType::PublishReadonly => self.publish_readonly = true,
                ControllerType::ExpandVolume => self.controller_expand = true,
                ControllerType::ListVolumes => self.list_volumes = true,
                ControllerType::ListVolumesPublishedNodes => self.list_published_nodes = true,
                ControllerType::SingleNodeMultiWriter => {
                    self.controller_single_node_multi_writer = true;
                }
                _ => {}
            }
            let name = ControllerType::try_from(rpc.r#type).map(|t| t.as_str_name());
            self.note("Controller.", rpc.r#type, name);
        }
        Ok(())
    }

    async fn read_node(&mut self, link: &Link<'_>) -> Result<(), CallError> {
        const RPC: Rpc = Rpc::plain("NodeGetCapabilities");
        let answer = rpc(link, RPC, |channel| async {
            let result = NodeClient::new(channel)
                .node_get_capabilities(NodeGetCapabilitiesRequest {})
                .await;
            absent_as_none(result)
        })
        .await?;
        let Some(answer) = answer else {
            return Ok(());
        };
        self.node = true;
        for capability in answer.capabilities {
            let Some(node_service_capability::Type::Rpc(rpc)) = capability.r#type else {
                continue;
            };
            match rpc.r#type() {
                NodeType::StageUnstageVolume => self.stage = true,
                NodeType::ExpandVolume => self.node_expand = true,
                NodeType::GetVolumeStats | NodeType::VolumeCondition => self.stats = true,
                NodeType::VolumeMountGroup => self.volume_mount_group = true,
                NodeType::SingleNodeMultiWriter => self.node_single_node_multi_writer = true,
                _ => {}
            }
            let name = NodeType::try_from(rpc.r#type).map(|t| t.as_str_name());
            self.note("Node.", rpc.r#type, name);
        }
        Ok(())
    }

    /// Keeps the name of a capability, known to us or not.
    fn note<E>(&mut self, service: &str, number: i32, name: Result<&'static str, E>) {
        self.names.push(match name {
            Ok(name) => format!("{service}{name}"),
            Err(_) => format!("{service}{number}"),
        });
    }
}

/// UNIMPLEMENTED becomes "not there".
fn absent_as_none<T>(
    result: Result<tonic::Response<T>, tonic::Status>,
) -> Result<tonic::Response<Option<T>>, tonic::Status> {
    match result {
        Ok(response) => Ok(response.map(Some)),
        Err(status) if status.code() == Code::Unimplemented => Ok(tonic::Response::new(None)),
        Err(status) => Err(status),
    }
}
