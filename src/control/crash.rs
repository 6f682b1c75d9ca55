// SPDX-License-Identifier: Apache-2.0
//! `actor crash`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    lifecycle::verb::{self, Call},
    record::{RequestId, VerbName},
    view::ActorView,
};
use crate::{error::Result, model::ActorRef};

impl Control {
    /// The platform's word that the actor died. The grant is over when it returns;
    /// with `wait`, everything is released and detached.
    pub async fn crash_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        request: Option<RequestId>,
        wait: bool,
        within: Duration,
    ) -> Result<ActorView> {
        let call = Call::new(VerbName::Crash, request, &());
        let end = |state: &mut _| verb::crash(state, call.now);
        self.end_actor(actor, &call, end, wait, within).await
    }
}
