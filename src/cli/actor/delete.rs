// SPDX-License-Identifier: Apache-2.0
//! `actor delete`

use clap::Args;

use crate::{
    cli::{Context, output, request::RequestId, timeout::Timeout},
    error::Result,
    model::ActorRef,
    proto::api,
};

/// Options of `actor delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    /// Wait until the actor and its volumes are gone.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    timeout: Timeout,
}

impl Delete {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::DeleteActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
            request_id: self.request.request_id,
        };
        client.delete_actor(request).await?;
        let done = if self.wait {
            "deleted"
        } else {
            "is being deleted"
        };
        output::print(&format!("actor {} {done}", self.actor))
    }
}
