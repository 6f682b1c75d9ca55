// SPDX-License-Identifier: Apache-2.0
//! `actor watch`

use clap::{Args, ValueEnum};

use crate::{
    cli::{Context, output},
    error::{Error, Result},
    model::{ActorRef, DnsLabel},
    proto::api::{self, actor_event::Kind},
};

/// Options of `actor watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The actor: namespace/name, or its name with -n; all unless given.
    #[arg(value_name = "NAME")]
    actor: Option<String>,
    /// Only those of this namespace.
    #[arg(short, long)]
    namespace: Option<DnsLabel>,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Watch {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let request = self.request()?;
        let mut client = context.client().await?;
        let mut events = client.watch_actors(request).await?;
        while let Some(event) = events.next().await? {
            let line = match self.format {
                Format::Text => text(&event),
                Format::Json => json(&event)?,
            };
            if !output::print_on(&line)? {
                return Ok(());
            }
        }
        Err(Error::unavailable(
            "the server has ended the watch: start it again",
        ))
    }

    fn request(&self) -> Result<api::WatchActorsRequest> {
        let namespace = self.namespace.as_ref().map(DnsLabel::to_string);
        let request = match (&self.actor, namespace) {
            (None, namespace) => api::WatchActorsRequest {
                namespace: namespace.unwrap_or_default(),
                name: String::new(),
            },
            (Some(name), Some(namespace)) => api::WatchActorsRequest {
                namespace,
                name: name.parse::<DnsLabel>()?.to_string(),
            },
            (Some(actor), None) => {
                let actor: ActorRef = actor.parse()?;
                api::WatchActorsRequest {
                    namespace: actor.namespace.to_string(),
                    name: actor.name.to_string(),
                }
            }
        };
        Ok(request)
    }
}

fn kind(event: &api::ActorEvent) -> &'static str {
    match event.kind() {
        Kind::Unspecified => "unknown",
        Kind::Present => "present",
        Kind::Synced => "synced",
        Kind::Changed => "changed",
        Kind::Gone => "gone",
        Kind::Gap => "gap",
    }
}

fn text(event: &api::ActorEvent) -> String {
    let Some(actor) = &event.actor else {
        return kind(event).to_owned();
    };
    let mut words = vec![
        kind(event).to_owned(),
        format!("{}/{}", actor.namespace, actor.name),
        actor.phase.clone(),
        actor.node.clone(),
        actor.message.clone(),
    ];
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

fn json(event: &api::ActorEvent) -> Result<String> {
    let value = serde_json::json!({"kind": kind(event), "actor": event.actor});
    serde_json::to_string(&value)
        .map_err(|e| Error::internal("cannot print an event").with_source(e))
}
