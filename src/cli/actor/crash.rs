// SPDX-License-Identifier: Apache-2.0
//! `actor crash`

use clap::Args;

use crate::{
    cli::{Context, output::Output, request::RequestId, timeout::Timeout},
    error::Result,
    model::ActorRef,
    proto::api,
};

/// Options of `actor crash`.
#[derive(Debug, Args)]
pub struct Crash {
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

impl Crash {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::CrashActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
            request_id: self.request.request_id,
        };
        let actor = client.crash_actor(request).await?;
        self.output.print(&actor, || {
            let phase = actor.phase.to_lowercase();
            format!("actor {} has crashed, it is {phase}", self.actor)
        })
    }
}
