// SPDX-License-Identifier: Apache-2.0
//! `actor create`

use clap::Args;

use crate::{
    cli::{
        Context,
        output::Output,
        request::{NamedVolume, RequestId, by_name, named_volume},
        timeout::Timeout,
    },
    error::Result,
    model::{ActorRef, DnsLabel},
    proto::api,
};

/// Options of `actor create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The actor: namespace/name.
    #[arg(value_name = "NAMESPACE/NAME")]
    actor: ActorRef,
    /// The template that it is made from.
    #[arg(long, value_name = "NAME")]
    template: DnsLabel,
    /// A retained volume that it takes over for one of the template's; may be repeated.
    #[arg(long, value_name = "NAME=UID", value_parser = named_volume)]
    adopt: Vec<NamedVolume>,
    /// Wait until its volumes are there.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    output: Output,
}

impl Create {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(self.timeout.timeout).await?;
        let request = api::CreateActorRequest {
            namespace: self.actor.namespace.to_string(),
            name: self.actor.name.to_string(),
            template: self.template.to_string(),
            wait: self.wait,
            timeout_ms: self.timeout.as_ms(),
            request_id: self.request.request_id,
            adopt: by_name(self.adopt),
        };
        let actor = client.create_actor(request).await?;
        self.output
            .print(&actor, || format!("actor {} created", self.actor))
    }
}
