// SPDX-License-Identifier: Apache-2.0
//! `actor create`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Control,
    cell::{Cell, Inner},
    lifecycle::{
        State,
        verb::{self, Call},
    },
    record::{ActorPhase, ActorRecord, RequestId, VerbName, VolumePhase, VolumeRecord},
    view::{self, ActorView},
};
use crate::{
    error::{Error, Kind, Result},
    model::{ActorRef, ActorUid, DnsLabel, VolumeUid},
};

/// Retained volumes by the name of the volume that they are to be.
pub type Adopted = BTreeMap<DnsLabel, VolumeUid>;

/// How an actor is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Retained volumes that it takes over.
    pub adopt: Adopted,
    /// What its client named the request.
    pub request: Option<RequestId>,
}

impl Control {
    /// Records the actor and its volumes; CreateVolume follows in the background.
    ///
    /// With `wait`, returns when the volumes are there.
    pub async fn create_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        template: &DnsLabel,
        options: CreateOptions,
        wait: Option<Duration>,
    ) -> Result<ActorView> {
        let cell = self.record_actor(actor, template, options).await?;
        match wait {
            Some(within) => wait_for_volumes(&cell, "created", within).await,
            None => {
                let inner = cell.lock().await?;
                view::actor_of(&inner).ok_or_else(|| super::missing(actor))
            }
        }
    }

    async fn record_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        template: &DnsLabel,
        options: CreateOptions,
    ) -> Result<Arc<Cell>> {
        let call = Call::new(
            VerbName::Create,
            options.request,
            &(template, &options.adopt),
        );
        let _standing = self.catalog.lock().await;
        // It can be found before it is told of, empty as it is.
        let cell = self.entered(actor);
        let is_there = cell.lock().await?.state.actor.is_some();
        if is_there {
            let there = self
                .change(&cell, |state| {
                    let Some(there) = state.actor.clone() else {
                        return Ok(false);
                    };
                    verb::perform(state, &call, |state| {
                        check_same(state, &there, template, &options.adopt)?;
                        verb::try_again(state);
                        Ok(())
                    })?;
                    Ok(true)
                })
                .await?;
            if there {
                return Ok(cell);
            }
        }
        let revision = self.template(template, 0).await?.0;
        let found = self.retained(&options.adopt).await?;
        let record = ActorRecord {
            actor: actor.clone(),
            uid: ActorUid::generate(),
            template: template.clone(),
            template_revision: 0,
            phase: ActorPhase::Suspended,
            placement: None,
            deletion: None,
            last_end: None,
            by: None,
            requests: Vec::new(),
            created_at: call.now,
        };
        let revision = self.revision_for(&record, &revision).await?;
        self.change_with(&cell, &found, |state| {
            // Only a holder of the catalog creates: it is not there still.
            verb::perform(state, &call, |state| {
                state.actor = Some(record);
                verb::revise(state, &revision)?;
                found.iter().try_for_each(|a| a.apply(state))
            })
        })
        .await?;
        tracing::info!(actor = %actor, template = %template, "actor created");
        Ok(cell)
    }
}

fn check_same(
    state: &State,
    there: &ActorRecord,
    template: &DnsLabel,
    adopt: &Adopted,
) -> Result<()> {
    let name = &there.actor;
    if there.deletion.is_some() {
        return Err(Error::aborted(format!(
            "actor {name} is still being deleted by {}: try again",
            verb::holder_of(there)
        )));
    }
    if &there.template != template {
        return Err(Error::already_exists(format!(
            "actor {name} exists with template {}, not {template}",
            there.template
        )));
    }
    for (volume, uid) in adopt {
        let mut bound = state.bound();
        if !bound.any(|v| &v.name == volume && &v.uid == uid) {
            return Err(Error::already_exists(format!(
                "actor {name} exists with another volume {volume} than {uid}"
            )));
        }
    }
    Ok(())
}

pub(super) async fn wait_for_volumes(
    cell: &Cell,
    what: &str,
    within: Duration,
) -> Result<ActorView> {
    let answer = cell
        .wait(within, |inner| {
            let Some(view) = view::actor_of(inner) else {
                return Some(Err(super::missing(&cell.name)));
            };
            if let Some(refused) = refused_volume(inner) {
                return Some(Err(refused));
            }
            let there = |v: &VolumeRecord| match v.phase {
                VolumePhase::Intent => v.first_consumer,
                phase => phase == VolumePhase::Ready,
            };
            let all = inner.state.bound().all(there);
            all.then_some(Ok(view))
        })
        .await?;
    match answer {
        Some(view) => Ok(view),
        None => Err(not_in_time(&*cell.lock().await?, what)),
    }
}

/// The error of a volume whose driver said no.
pub(super) fn refused_volume(inner: &Inner) -> Option<Error> {
    let state = &inner.state;
    let actor = &state.actor.as_ref()?.actor;
    state.bound().find_map(|volume| {
        let mut troubles = volume.trouble.iter().chain(
            state
                .attachments_of(&volume.uid)
                .filter_map(|a| a.trouble.as_ref()),
        );
        let stopped = troubles.find(|t| t.next_try.is_none())?;
        Some(Error::precondition(format!(
            "volume {} of actor {actor}: {}",
            volume.name, stopped.message
        )))
    })
}

/// The error of volumes that were not there in time.
pub(super) fn not_in_time(inner: &Inner, what: &str) -> Error {
    let state = &inner.state;
    let Some(actor) = state.actor.as_ref() else {
        return Error::not_found("the actor does not exist any more");
    };
    let message = view::message_of(inner);
    if !message.is_empty() {
        // A limit is told for what it is; all else may pass.
        let mut troubles = state
            .attachments
            .values()
            .filter_map(|a| a.trouble.as_ref());
        let limit = Kind::ResourceExhausted;
        let kind = if troubles.any(|t| t.code == limit.code()) {
            limit
        } else {
            Kind::Unavailable
        };
        return Error::new(
            kind,
            format!("actor {} is not {what} yet: {message}", actor.actor),
        );
    }
    let names: Vec<_> = state
        .bound()
        .filter(|v| {
            let mut attachments = state.attachments_of(&v.uid);
            v.phase != VolumePhase::Ready
                || attachments.any(|a| a.phase != super::record::AttachmentPhase::Attached)
        })
        .map(|v| v.name.to_string())
        .collect();
    Error::unavailable(format!(
        "actor {} is not {what} yet: its driver has not answered for {}",
        actor.actor,
        names.join(", ")
    ))
}
