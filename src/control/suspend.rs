// SPDX-License-Identifier: Apache-2.0
//! `actor suspend`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    cell::Cell,
    lifecycle::{
        State,
        verb::{self, Call},
    },
    record::{ActorPhase, AttachmentPhase, RequestId, VerbName},
    view::{self, ActorView},
};
use crate::{
    error::{Error, Result},
    model::ActorRef,
};

impl Control {
    /// Ends the grant: when it returns, the node publishes it no more. Release and
    /// detach follow in the background; with `wait`, it returns after them.
    pub async fn suspend_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        request: Option<RequestId>,
        wait: bool,
        within: Duration,
    ) -> Result<ActorView> {
        let call = Call::new(VerbName::Suspend, request, &());
        let end = |state: &mut _| verb::suspend(state, call.now);
        self.end_actor(actor, &call, end, wait, within).await
    }

    /// Ends the grant by this verb and waits for what follows.
    pub(super) async fn end_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        call: &Call,
        end: impl FnOnce(&mut State) -> Result<()>,
        wait: bool,
        within: Duration,
    ) -> Result<ActorView> {
        let cell = self.cell(actor).await?;
        self.change(&cell, |state| verb::perform(state, call, end))
            .await
            .map_err(|e| name_the_actor(e, actor))?;
        let answer = cell
            .wait(within, |inner| {
                let Some(view) = view::actor_of(inner) else {
                    return Some(Err(super::missing(actor)));
                };
                let mut attachments = inner.state.attachments.values();
                let enough = if wait {
                    view.actor.phase != ActorPhase::Suspending
                } else {
                    !attachments.any(|a| a.phase == AttachmentPhase::Revoking)
                };
                enough.then_some(Ok(view))
            })
            .await?;
        match answer {
            Some(view) => Ok(view),
            None => Err(still(&cell, "suspended").await),
        }
    }
}

/// The state machine knows no name when there is no actor.
pub(super) fn name_the_actor(error: Error, actor: &ActorRef) -> Error {
    match error.kind() {
        crate::error::Kind::NotFound => super::missing(actor),
        _ => error,
    }
}

/// The error of a wait that was too short: what is awaited, and who holds it.
pub(super) async fn still(cell: &Cell, what: &str) -> Error {
    let message = match cell.lock().await {
        Ok(inner) => view::message_of(&inner),
        Err(error) => return error,
    };
    let message = if message.is_empty() {
        "a driver has not answered yet".to_owned()
    } else {
        message
    };
    Error::deadline(format!(
        "actor {} is not {what} yet, it goes on in the background: {message}",
        cell.name
    ))
}
