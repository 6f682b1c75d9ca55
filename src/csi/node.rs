// SPDX-License-Identifier: Apache-2.0
//! Calls of the Node service.

use std::path::Path;

use tonic::Code;

use super::{
    CallError, Capabilities, Driver, NodeInfo, NodePublish, NodeStage,
    answer::{check_id, check_topology},
    call::Rpc,
};
use crate::{
    error::Error,
    proto::csi::{self as wire, node_client::NodeClient},
};

const INFO: Rpc = Rpc::node("NodeGetInfo");
const STAGE: Rpc = Rpc::node("NodeStageVolume");
const UNSTAGE: Rpc = Rpc::node("NodeUnstageVolume");
const PUBLISH: Rpc = Rpc::node("NodePublishVolume");
const UNPUBLISH: Rpc = Rpc::node("NodeUnpublishVolume");

/// The longest node id (CSI spec, NodeGetInfo).
const MAX_NODE_ID: usize = 256;

impl Driver {
    /// NodeGetInfo, asked once per connection.
    ///
    /// Empty where the driver has no NodeGetInfo and needs none, because it has
    /// neither ControllerPublishVolume nor topology.
    pub async fn node_info(&self) -> Result<NodeInfo, CallError> {
        let connection = self.connect_node(INFO).await?;
        let all = self.capabilities().await?;
        let ask = || async {
            let needed = all.controller_publish || all.topology;
            let build = |driver: &Capabilities| {
                if !driver.node && !needed {
                    return Ok(None);
                }
                self.gate(INFO, "a Node service", driver.node)?;
                Ok(Some(wire::NodeGetInfoRequest {}))
            };
            let answer = self
                .call(INFO, build, |channel, request| async {
                    match NodeClient::new(channel).node_get_info(request).await {
                        Err(status) if status.code() == Code::Unimplemented && !needed => {
                            Ok(tonic::Response::new(wire::NodeGetInfoResponse::default()))
                        }
                        other => other,
                    }
                })
                .await?
                .unwrap_or_default();
            let topology = answer
                .accessible_topology
                .map(|t| t.segments.into_iter().collect())
                .unwrap_or_default();
            let checked = if needed || !answer.node_id.is_empty() {
                check_id("node id", &answer.node_id, MAX_NODE_ID)
            } else {
                Ok(())
            };
            checked
                .and_then(|()| check_topology(&topology))
                .map_err(|e| {
                    let e = e.context(format_args!("CSI driver {}", self.name()));
                    CallError::last(INFO.name, e)
                })?;
            Ok(NodeInfo {
                node_id: answer.node_id,
                max_volumes: u64::try_from(answer.max_volumes_per_node).unwrap_or_default(),
                topology,
            })
        };
        connection.node_info.get_or_try_init(ask).await.cloned()
    }

    /// Does nothing where the driver does not stage.
    pub async fn node_stage(&self, request: &NodeStage) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            // No Node service at all is no proof that nothing needs staging.
            self.gate(STAGE, "a Node service", driver.node)?;
            if !driver.stage {
                return Ok(None);
            }
            Ok(Some(wire::NodeStageVolumeRequest {
                volume_id: request.volume_id.clone(),
                publish_context: request.publish_context.clone().into_iter().collect(),
                staging_target_path: self.path(STAGE, &request.staging_path)?,
                volume_capability: Some(
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(STAGE.name, e))?,
                ),
                volume_context: request.volume_context.clone().into_iter().collect(),
                secrets: request.secrets.expose().collect(),
            }))
        };
        self.call(STAGE, build, |channel, request| async {
            NodeClient::new(channel).node_stage_volume(request).await
        })
        .await?;
        Ok(())
    }

    /// Publishes the volume at the target path.
    pub async fn node_publish(&self, request: &NodePublish) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            self.gate(PUBLISH, "a Node service", driver.node)?;
            let staging_target_path = if driver.stage {
                self.path(PUBLISH, &request.staging_path)?
            } else {
                String::new()
            };
            Ok(Some(wire::NodePublishVolumeRequest {
                volume_id: request.volume_id.clone(),
                publish_context: request.publish_context.clone().into_iter().collect(),
                staging_target_path,
                target_path: self.path(PUBLISH, &request.target_path)?,
                volume_capability: Some(
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(PUBLISH.name, e))?,
                ),
                readonly: request.read_only,
                volume_context: request.volume_context.clone().into_iter().collect(),
                secrets: request.secrets.expose().collect(),
            }))
        };
        self.call(PUBLISH, build, |channel, request| async {
            NodeClient::new(channel).node_publish_volume(request).await
        })
        .await?;
        Ok(())
    }

    /// Unpublishes; the driver removes the target path.
    pub async fn node_unpublish(
        &self,
        volume_id: &str,
        target_path: &Path,
    ) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            self.gate(UNPUBLISH, "a Node service", driver.node)?;
            Ok(Some(wire::NodeUnpublishVolumeRequest {
                volume_id: volume_id.into(),
                target_path: self.path(UNPUBLISH, target_path)?,
            }))
        };
        self.call(UNPUBLISH, build, |channel, request| async {
            NodeClient::new(channel)
                .node_unpublish_volume(request)
                .await
        })
        .await?;
        Ok(())
    }

    /// Does nothing where the driver does not stage.
    pub async fn node_unstage(
        &self,
        volume_id: &str,
        staging_path: &Path,
    ) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            self.gate(UNSTAGE, "a Node service", driver.node)?;
            if !driver.stage {
                return Ok(None);
            }
            Ok(Some(wire::NodeUnstageVolumeRequest {
                volume_id: volume_id.into(),
                staging_target_path: self.path(UNSTAGE, staging_path)?,
            }))
        };
        self.call(UNSTAGE, build, |channel, request| async {
            NodeClient::new(channel).node_unstage_volume(request).await
        })
        .await?;
        Ok(())
    }

    /// A path as CSI takes it, and as the driver sees it.
    pub(super) fn path(&self, rpc: Rpc, path: &Path) -> Result<String, CallError> {
        let path = self.map_path(path);
        path.to_str().map(str::to_owned).ok_or_else(|| {
            let e = Error::invalid(format!(
                "path {} is not UTF-8, which CSI needs: choose another mount root",
                path.display()
            ));
            CallError::last(rpc.name, e)
        })
    }
}
