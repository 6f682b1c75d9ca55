// SPDX-License-Identifier: Apache-2.0
//! `actor suspend`

use clap::Args;

use crate::{
    cli::{Context, output::Output, request::RequestId, timeout::Timeout},
    error::Result,
    model::ActorRef,
    proto::api,
};

/// Options of `actor suspend`.
#[derive(Debug, Args)]
pub struct Suspend {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    /// Wait until every volume is released and detached.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    output: Output,
}

impl Suspend {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::SuspendActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
            request_id: self.request.request_id,
        };
        let actor = client.suspend_actor(request).await?;
        self.output.print(&actor, || {
            let phase = actor.phase.to_lowercase();
            format!("actor {} is {phase}", self.actor)
        })
    }
}
