// SPDX-License-Identifier: Apache-2.0
//! `template status`.

use std::sync::Arc;

use super::{
    Control,
    cell::blocking,
    record::{self, TemplateRecord, TemplateRevision, key},
    rollout::is_kept,
    store,
    view::{self, TemplateStatus},
};
use crate::{
    error::{Error, Result},
    model::DnsLabel,
};

/// How many unbound volumes are shown.
const SHOWN: usize = 500;

impl Control {
    /// How far the newest revision of a template has come.
    pub async fn template_status(self: &Arc<Self>, name: &DnsLabel) -> Result<TemplateStatus> {
        let (store, template) = (self.store.clone(), name.clone());
        let (head, revisions) = blocking(&self.tasks, move || {
            let key = key::template(&template);
            let stored = store
                .get(&key)?
                .ok_or_else(|| Error::not_found(format!("template {template} does not exist")))?;
            let head: TemplateRecord = record::decode(&key, &stored.value)?;
            let mut revisions = Vec::new();
            for (key, stored) in store::list_all(&*store, &key::template_revisions(&template))? {
                let revision: TemplateRevision = record::decode(&key, &stored.value)?;
                revisions.push((revision.revision, revision.applied_at));
            }
            Ok((head, revisions))
        })
        .await?;
        let actors = self.rollouts.of(name);
        let mut unbound = Vec::new();
        let mut unbound_count = 0;
        for actor in &actors.keepers {
            let Ok(cell) = self.cell(actor).await else {
                continue;
            };
            let inner = cell.lock().await?;
            for volume in inner.state.volumes.values().filter(|v| is_kept(v)) {
                unbound_count += 1;
                if unbound.len() < SHOWN {
                    unbound.push(view::volume_of(&inner.state, &inner.holders, volume));
                }
            }
        }
        let behind: u64 = actors
            .on
            .iter()
            .filter(|(on, _)| **on < head.revision)
            .map(|(_, n)| n)
            .sum();
        let all: u64 = actors.on.values().sum();
        let message = match (behind, unbound_count) {
            (0, 0) => String::new(),
            (0, n) => format!("{n} volumes that it lacks are being let go of"),
            (behind, n) => {
                let mut message = format!(
                    "{behind} of {all} actors are on an older revision: they move when they are resumed next, or by `actor update`"
                );
                if n > 0 {
                    message.push_str(&format!(
                        "; {n} volumes that their actors' revision lacks are kept until then"
                    ));
                }
                message
            }
        };
        Ok(TemplateStatus {
            name: name.clone(),
            revision: head.revision,
            complete: message.is_empty(),
            revisions: revisions
                .into_iter()
                .map(|(n, at)| (n, at, actors.on.get(&n).copied().unwrap_or_default()))
                .collect(),
            unbound,
            unbound_count,
            message,
        })
    }
}
