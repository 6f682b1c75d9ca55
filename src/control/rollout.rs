// SPDX-License-Identifier: Apache-2.0
//! Rollouts: which actors are on which revision, and what becomes of volumes that
//! the newest one lacks when all of them are there.
//!
//! That a rollout is complete is recorded in the template, with the catalog
//! held: from then on those volumes come back no more, whatever is applied.
//! Their actors let go of them one by one after that, and after a restart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    Control,
    cell::blocking,
    index::TemplateActor,
    lifecycle::{State, verb},
    record::{self, ActorRecord, TemplateRecord, TemplateRevision, VolumePhase, VolumeRecord, key},
    store::Write,
    template::read_revision,
};
use crate::{
    error::Result,
    model::{ActorRef, DnsLabel},
};

/// The actors of every template.
#[derive(Default)]
pub(super) struct Index {
    templates: Mutex<HashMap<DnsLabel, Actors>>,
}

/// The actors of a template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Actors {
    /// How many are on a revision; those that are being deleted do not count.
    pub(super) on: BTreeMap<u64, u64>,
    /// Those that keep volumes which their revision lacks.
    pub(super) keepers: BTreeSet<ActorRef>,
}

/// What counts of an actor.
#[derive(PartialEq)]
struct Standing {
    template: DnsLabel,
    actor: ActorRef,
    revision: u64,
    keeps: bool,
}

/// Whether it waits for the end of a rollout.
pub(super) fn is_kept(volume: &VolumeRecord) -> bool {
    let going = matches!(
        volume.phase,
        VolumePhase::Deleting | VolumePhase::Gone | VolumePhase::Retained
    );
    volume.unbound && !going
}

fn standing(state: &State) -> Option<Standing> {
    let actor = state.actor.as_ref().filter(|a| a.deletion.is_none())?;
    Some(Standing {
        template: actor.template.clone(),
        actor: actor.actor.clone(),
        revision: actor.template_revision,
        keeps: state.volumes.values().any(is_kept),
    })
}

impl Index {
    fn templates(&self) -> MutexGuard<'_, HashMap<DnsLabel, Actors>> {
        // Counts are changed without a call that can panic in between.
        self.templates.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Counts an actor that was found.
    pub(super) fn count(&self, found: &TemplateActor) {
        let mut templates = self.templates();
        let actors = templates.entry(found.template.clone()).or_default();
        *actors.on.entry(found.revision).or_default() += 1;
    }

    /// The actor was found to keep volumes.
    pub(super) fn keeps(&self, actor: &ActorRecord) {
        let mut templates = self.templates();
        let actors = templates.entry(actor.template.clone()).or_default();
        actors.keepers.insert(actor.actor.clone());
    }

    /// Counts what became of an actor. A template whose rollout may be complete
    /// by that.
    pub(super) fn follow(&self, before: &State, after: &State) -> Option<DnsLabel> {
        let (before, after) = (standing(before), standing(after));
        if before == after {
            return None;
        }
        let mut templates = self.templates();
        if let Some(was) = &before {
            let actors = templates.entry(was.template.clone()).or_default();
            if let Some(count) = actors.on.get_mut(&was.revision) {
                *count -= 1;
            }
            actors.on.retain(|_, count| *count > 0);
            actors.keepers.remove(&was.actor);
        }
        if let Some(is) = &after {
            let actors = templates.entry(is.template.clone()).or_default();
            *actors.on.entry(is.revision).or_default() += 1;
            if is.keeps {
                actors.keepers.insert(is.actor.clone());
            }
        }
        let revision = |s: &Option<Standing>| s.as_ref().map(|s| s.revision);
        if revision(&before) == revision(&after) {
            return None;
        }
        let template = before.or(after).map(|s| s.template)?;
        let actors = templates.get(&template)?;
        let ready = actors.on.len() <= 1 && !actors.keepers.is_empty();
        ready.then_some(template)
    }

    /// Templates of which actors keep volumes.
    pub(super) fn waiting(&self) -> Vec<DnsLabel> {
        let templates = self.templates();
        let waiting = templates.iter().filter(|(_, a)| !a.keepers.is_empty());
        waiting.map(|(name, _)| name.clone()).collect()
    }

    /// The actors of a template.
    pub(super) fn of(&self, template: &DnsLabel) -> Actors {
        self.templates().get(template).cloned().unwrap_or_default()
    }
}

impl Control {
    /// Ends the rollout, if it is complete, in the background.
    pub(super) fn go_on_with(self: &Arc<Self>, template: DnsLabel) {
        let control = self.clone();
        self.tasks.spawn(async move {
            let stop = control.stop.clone();
            stop.run_until_cancelled(control.end_rollout(&template))
                .await;
        });
    }

    async fn end_rollout(self: &Arc<Self>, template: &DnsLabel) {
        let mut failures = 0;
        while let Err(error) = self.try_end_rollout(template).await {
            failures += 1;
            tracing::error!(template = %template, error = %error.full_message(), "cannot end a rollout");
            let pause = self.settings.pace.pause(failures, fastrand::f64());
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_end_rollout(self: &Arc<Self>, template: &DnsLabel) -> Result<()> {
        let head = self.record_completion(template).await?;
        if head.complete == 0 {
            return Ok(());
        }
        for actor in self.rollouts.of(template).keepers {
            let Ok(cell) = self.cell(&actor).await else {
                continue;
            };
            self.change(&cell, |state| {
                let ours = state
                    .actor
                    .as_ref()
                    .is_some_and(|a| &a.template == template);
                if ours {
                    verb::retire(state, |name, introduced| head.is_over(name, introduced));
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Records that every actor is on the newest revision, if that is so.
    async fn record_completion(&self, template: &DnsLabel) -> Result<TemplateRecord> {
        let _standing = self.catalog.lock().await;
        let actors = self.rollouts.of(template);
        let (store, template) = (self.store.clone(), template.clone());
        blocking(&self.tasks, move || {
            let key = key::template(&template);
            let Some(stored) = store.get(&key)? else {
                return Ok(TemplateRecord::new(template, 0, jiff::Timestamp::now()));
            };
            let mut head: TemplateRecord = record::decode(&key, &stored.value)?;
            let complete = actors.on.keys().all(|on| *on == head.revision);
            if complete && head.complete < head.revision && !actors.keepers.is_empty() {
                let newest: TemplateRevision = read_revision(&*store, &template, head.revision)?;
                head.complete = head.revision;
                head.survivors = newest.identities;
                store.write(&[Write {
                    key,
                    expect: Some(stored.revision),
                    value: Some(record::encode(&head)?),
                }])?;
                tracing::info!(template = %template, revision = head.revision, "rollout complete");
            }
            Ok(head)
        })
        .await
    }
}
