// SPDX-License-Identifier: Apache-2.0
//! ControllerExpandVolume and NodeExpandVolume.

use super::{
    CallError, Capabilities, ControllerExpand, Driver, ExpandedVolume, NodeExpand, call::Rpc,
};
use crate::{
    error::Error,
    proto::csi::{self as wire, controller_client::ControllerClient, node_client::NodeClient},
};

const EXPAND: Rpc = Rpc::attaching("ControllerExpandVolume");
const NODE_EXPAND: Rpc = Rpc::node("NodeExpandVolume");

impl Driver {
    /// Makes the volume larger; one that is large enough already is success.
    ///
    /// A driver whose volumes grow on the node alone (EXPAND_VOLUME of the node
    /// and not of the controller) answers with nothing but "on the node, please".
    pub async fn controller_expand(
        &self,
        request: &ControllerExpand,
    ) -> Result<ExpandedVolume, CallError> {
        let build = |driver: &Capabilities| {
            if !driver.controller_expand && driver.node_expand {
                return Ok(None);
            }
            self.gate(EXPAND, "EXPAND_VOLUME", driver.controller_expand)?;
            Ok(Some(wire::ControllerExpandVolumeRequest {
                volume_id: request.volume_id.clone(),
                capacity_range: Some(range(EXPAND, request.required_bytes)?),
                secrets: request.secrets.expose().collect(),
                volume_capability: Some(
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(EXPAND.name, e))?,
                ),
            }))
        };
        let answer = self
            .call(EXPAND, build, |channel, request| async {
                ControllerClient::new(channel)
                    .controller_expand_volume(request)
                    .await
            })
            .await?;
        let Some(answer) = answer else {
            return Ok(ExpandedVolume {
                capacity_bytes: request.required_bytes,
                node_expansion_required: true,
            });
        };
        let capacity_bytes = u64::try_from(answer.capacity_bytes).unwrap_or_default();
        if capacity_bytes < request.required_bytes {
            // It may have grown, and the same request again may say so.
            let e = Error::internal(format!(
                "CSI driver {} answered OK and {} bytes to a volume that was to have {}",
                self.name(),
                answer.capacity_bytes,
                request.required_bytes
            ));
            return Err(CallError::ambiguous(EXPAND.name, e));
        }
        Ok(ExpandedVolume {
            capacity_bytes,
            node_expansion_required: answer.node_expansion_required,
        })
    }

    /// Makes what is on the volume as large as the volume. Gives the size now;
    /// 0: unknown.
    pub async fn node_expand(&self, request: &NodeExpand) -> Result<u64, CallError> {
        let build = |driver: &Capabilities| {
            self.gate(NODE_EXPAND, "EXPAND_VOLUME of the node", driver.node_expand)?;
            Ok(Some(wire::NodeExpandVolumeRequest {
                volume_id: request.volume_id.clone(),
                volume_path: self.path(NODE_EXPAND, &request.volume_path)?,
                capacity_range: Some(range(NODE_EXPAND, request.required_bytes)?),
                staging_target_path: if driver.stage {
                    self.path(NODE_EXPAND, &request.staging_path)?
                } else {
                    String::new()
                },
                volume_capability: Some(
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(NODE_EXPAND.name, e))?,
                ),
                secrets: request.secrets.expose().collect(),
            }))
        };
        let answer = self
            .call(NODE_EXPAND, build, |channel, request| async {
                NodeClient::new(channel).node_expand_volume(request).await
            })
            .await?;
        let bytes = answer.map(|a| a.capacity_bytes).unwrap_or_default();
        Ok(u64::try_from(bytes).unwrap_or_default())
    }
}

fn range(rpc: Rpc, required_bytes: u64) -> Result<wire::CapacityRange, CallError> {
    let required_bytes = i64::try_from(required_bytes).map_err(|_| {
        let e = Error::invalid("a capacity above 8 EiB cannot be asked for: lower it");
        CallError::last(rpc.name, e)
    })?;
    Ok(wire::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    })
}
