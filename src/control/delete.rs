// SPDX-License-Identifier: Apache-2.0
//! `actor delete`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    lifecycle::verb::{self, Call},
    record::{RequestId, VerbName},
    suspend::{name_the_actor, still},
};
use crate::{error::Result, model::ActorRef};

impl Control {
    /// Records the deletion; the volumes follow in the background. With `wait`,
    /// returns when the actor and its volumes are gone.
    pub async fn delete_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        request: Option<RequestId>,
        wait: Option<Duration>,
    ) -> Result<()> {
        let call = Call::new(VerbName::Delete, request, &());
        let cell = self.cell(actor).await?;
        let delete = |state: &mut _| verb::delete(state, call.now);
        let uid = self
            .change(&cell, |state| {
                let uid = state.actor.as_ref().map(|a| a.uid.clone());
                verb::perform(state, &call, delete)?;
                Ok(uid)
            })
            .await
            .map_err(|e| name_the_actor(e, actor))?;
        let Some(within) = wait else {
            return Ok(());
        };
        let gone = cell
            .wait(within, |inner| {
                // Another one of the same name may have come by now.
                let there = inner.state.actor.as_ref().map(|a| &a.uid);
                (there.is_none() || there != uid.as_ref()).then_some(Ok(()))
            })
            .await?;
        match gone {
            Some(()) => Ok(()),
            None => Err(still(&cell, "deleted").await),
        }
    }
}
