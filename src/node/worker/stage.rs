// SPDX-License-Identifier: Apache-2.0
//! NodeStageVolume.

use super::{Done, capability, make_dir};
use crate::{
    csi::{Driver, NodeStage},
    error::Result,
    host::crash::{self, CrashPoint},
    model::{Scope, SecretUse},
    node::{
        Phase,
        proof::{self, Glance},
        volume::Volume,
    },
};

impl Volume {
    pub(super) async fn stage(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let Some(publication) = self.publication(scope).await else {
            return Ok(Done::Step);
        };
        // Read before the intent: without its secrets nothing is begun.
        let refs = &publication.request.secret_refs;
        let secrets = self.shared.vault.read(refs, SecretUse::NodeStage).await?;
        let Some(usage) = self
            .intend(scope, |record, publication| {
                record.staging.phase = Phase::Doing;
                record.staging.request = Some(publication.request.clone());
            })
            .await?
        else {
            return Ok(Done::Step);
        };
        crash::hit(CrashPoint::StageIntended);
        let staging_path = self.shared.layout.staging(&self.key);
        make_dir(staging_path.clone()).await?;
        driver
            .node_stage(&NodeStage {
                volume_id: self.key.volume_id.clone(),
                capability: capability(&usage),
                publish_context: usage.publish_context,
                staging_path: staging_path.clone(),
                volume_context: usage.volume_context,
                secrets,
            })
            .await?;
        crash::hit(CrashPoint::StageAnswered);
        // Not every driver mounts here; whoever did must find it at publish.
        let mounted = proof::glance(staging_path).await? != Glance::Nothing;
        self.commit(|record| {
            record.staging.phase = Phase::Done;
            record.staging.mounted = mounted;
        })
        .await;
        crash::hit(CrashPoint::StageRecorded);
        Ok(Done::Step)
    }

    /// Whether what the driver mounted at the staging path is gone: then it is
    /// to be staged again, with the same request.
    pub(super) async fn staging_is_lost(&self) -> Result<bool> {
        if !self.state.lock().await.record.staging.mounted {
            return Ok(false);
        }
        let staging_path = self.shared.layout.staging(&self.key);
        if proof::glance(staging_path).await? != Glance::Nothing {
            return Ok(false);
        }
        tracing::warn!(volume = %self.key, "what the driver had mounted at the staging path is gone: staging again");
        self.commit(|record| record.staging.phase = Phase::Doing)
            .await;
        Ok(true)
    }
}
