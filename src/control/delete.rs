// SPDX-License-Identifier: Apache-2.0
//! `actor delete`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Control,
    lifecycle::verb,
    suspend::{name_the_actor, still},
};
use crate::{error::Result, model::ActorRef};

impl Control {
    /// Records the deletion; the volumes follow in the background. With `wait`,
    /// returns when the actor and its volumes are gone.
    pub async fn delete_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        wait: Option<Duration>,
    ) -> Result<()> {
        let cell = self.cell(actor)?;
        self.change(&cell, |state| verb::delete(state, Timestamp::now()))
            .await
            .map_err(|e| name_the_actor(e, actor))?;
        let Some(within) = wait else {
            return Ok(());
        };
        let gone = cell
            .wait(within, |inner| {
                inner.state.actor.is_none().then_some(Ok(()))
            })
            .await?;
        match gone {
            Some(()) => Ok(()),
            None => Err(still(&cell, "deleted").await),
        }
    }
}
