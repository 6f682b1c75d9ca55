// SPDX-License-Identifier: Apache-2.0
//! ControllerPublishVolume and its negation.

use std::collections::BTreeMap;

use super::{
    CallError, Capabilities, ControllerPublish, ControllerUnpublish, Driver, answer::check_context,
    call::Rpc,
};
use crate::proto::csi::{self as wire, controller_client::ControllerClient};

const PUBLISH: Rpc = Rpc::attaching("ControllerPublishVolume");
const UNPUBLISH: Rpc = Rpc::attaching("ControllerUnpublishVolume");

impl Driver {
    /// The publish_context; empty where the driver has no ControllerPublishVolume.
    pub async fn controller_publish(
        &self,
        request: &ControllerPublish,
    ) -> Result<BTreeMap<String, String>, CallError> {
        let build = |driver: &Capabilities| {
            self.gate_attach(PUBLISH, driver)?;
            if !driver.controller_publish {
                return Ok(None);
            }
            Ok(Some(wire::ControllerPublishVolumeRequest {
                volume_id: request.volume_id.clone(),
                node_id: request.node_id.clone(),
                volume_capability: Some(
                    request
                        .capability
                        .to_wire(driver)
                        .map_err(|e| CallError::last(PUBLISH.name, e))?,
                ),
                // Without the capability it must be false (CSI spec).
                readonly: request.read_only && driver.publish_readonly,
                volume_context: request.volume_context.clone().into_iter().collect(),
                secrets: request.secrets.expose().collect(),
            }))
        };
        let answer = self
            .call(PUBLISH, build, |channel, request| async {
                ControllerClient::new(channel)
                    .controller_publish_volume(request)
                    .await
            })
            .await?;
        let context: BTreeMap<_, _> = answer
            .map(|a| a.publish_context.into_iter().collect())
            .unwrap_or_default();
        // It is attached already: the caller must undo it, so never final.
        check_context("publish_context", &context).map_err(|e| {
            let e = e.context(format!("CSI driver {}", self.name()));
            CallError::ambiguous(PUBLISH.name, e)
        })?;
        Ok(context)
    }

    /// Does nothing where the driver has no ControllerPublishVolume.
    pub async fn controller_unpublish(
        &self,
        request: &ControllerUnpublish,
    ) -> Result<(), CallError> {
        let build = |driver: &Capabilities| {
            self.gate_attach(UNPUBLISH, driver)?;
            Ok(driver
                .controller_publish
                .then(|| wire::ControllerUnpublishVolumeRequest {
                    volume_id: request.volume_id.clone(),
                    node_id: request.node_id.clone(),
                    secrets: request.secrets.expose().collect(),
                }))
        };
        self.call(UNPUBLISH, build, |channel, request| async {
            ControllerClient::new(channel)
                .controller_unpublish_volume(request)
                .await
        })
        .await?;
        Ok(())
    }

    /// A process that does not serve the Controller service is no proof that
    /// the driver has no ControllerPublishVolume.
    fn gate_attach(&self, rpc: Rpc, driver: &Capabilities) -> Result<(), CallError> {
        self.gate(
            rpc,
            "a Controller service here",
            !driver.controller_elsewhere,
        )
    }
}
