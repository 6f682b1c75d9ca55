// SPDX-License-Identifier: Apache-2.0
//! `actor update`

use clap::Args;

use crate::{
    cli::{Context, output::Output, request::RequestId, timeout::Timeout},
    error::Result,
    model::ActorRef,
    proto::api,
};

/// Options of `actor update`.
#[derive(Debug, Args)]
pub struct Update {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    /// The revision that the newest one must be.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: u64,
    /// Wait until its new volumes are there.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    output: Output,
}

impl Update {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::UpdateActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            revision: self.revision,
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
            request_id: self.request.request_id,
        };
        let actor = client.update_actor(request).await?;
        self.output.print(&actor, || {
            format!(
                "actor {} is on revision {} of template {}",
                self.actor, actor.template_revision, actor.template
            )
        })
    }
}
