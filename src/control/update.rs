// SPDX-License-Identifier: Apache-2.0
//! `actor update`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    create::wait_for_volumes,
    lifecycle::verb::{self, Call},
    record::{RequestId, VerbName},
    view::{self, ActorView},
};
use crate::{
    error::{Error, Result},
    model::ActorRef,
};

impl Control {
    /// Moves a suspended actor to the newest revision of its template; 0 stands
    /// for whichever that is. With `wait`, returns when its volumes are there.
    pub async fn update_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        revision: u64,
        request: Option<RequestId>,
        wait: Option<Duration>,
    ) -> Result<ActorView> {
        let call = Call::new(VerbName::Update, request, &revision);
        let cell = self.cell(actor).await?;
        let there = cell.lock().await?.state.actor.clone();
        let there = there.ok_or_else(|| super::missing(actor))?;
        let newest = self.template(&there.template, 0).await?.0;
        let to = self.revision_for(&there, &newest).await?;
        self.change(&cell, |state| {
            verb::perform(state, &call, |state| {
                if revision != 0 && revision != newest.revision {
                    return Err(Error::precondition(format!(
                        "actor {actor} can move to revision {} of template {} alone, which is the newest: to go back, use `template rollback`",
                        newest.revision, there.template
                    )));
                }
                if state.actor.as_ref().map(|a| &a.uid) != Some(&there.uid) {
                    return Err(Error::aborted(format!(
                        "actor {actor} was deleted and created meanwhile: try again"
                    )));
                }
                verb::update(state, &to)?;
                verb::try_again(state);
                Ok(())
            })
        })
        .await?;
        if let Some(within) = wait {
            return wait_for_volumes(&cell, "updated", within).await;
        }
        let inner = cell.lock().await?;
        view::actor_of(&inner).ok_or_else(|| super::missing(actor))
    }
}
