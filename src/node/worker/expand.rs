// SPDX-License-Identifier: Apache-2.0
//! NodeExpandVolume.

use super::{Done, capability};
use crate::{
    csi::{Driver, NodeExpand, Outcome},
    error::{Result, Retry},
    model::{Scope, SecretUse},
    node::volume::Volume,
};

impl Volume {
    pub(super) async fn expand_at(&self, driver: &Driver, scope: &Scope) -> Result<Done> {
        let (publication, required_bytes) = {
            let state = self.state.lock().await;
            let publication = state.record.publication(scope).filter(|p| p.is_live());
            match (publication.cloned(), state.record.expand) {
                (Some(publication), Some(bytes)) => (publication, bytes),
                _ => return Ok(Done::Step),
            }
        };
        let usage = publication.request;
        let refs = &usage.secret_refs;
        let secrets = self.shared.vault.read(refs, SecretUse::NodeExpand).await?;
        let expanded = driver
            .node_expand(&NodeExpand {
                volume_id: self.key.volume_id.clone(),
                volume_path: self.shared.layout.target(&self.key, scope),
                staging_path: self.shared.layout.staging(&self.key),
                required_bytes,
                capability: capability(&usage),
                secrets,
            })
            .await;
        let refused = match &expanded {
            Ok(_) => false,
            // CSI: FAILED_PRECONDITION and UNIMPLEMENTED are not to be retried.
            Err(e) => e.outcome == Outcome::Final && e.error.kind().retry() != Retry::Later,
        };
        if expanded.is_ok() || refused {
            self.commit(|record| {
                // A larger size may have been asked for meanwhile.
                record.expand = record.expand.filter(|bytes| *bytes > required_bytes);
                if !refused {
                    record.expanded = record.expanded.max(Some(required_bytes));
                }
            })
            .await;
        }
        expanded?;
        Ok(Done::Step)
    }
}
