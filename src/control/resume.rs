// SPDX-License-Identifier: Apache-2.0
//! `actor resume`.

use std::{sync::Arc, time::Duration};

use super::{
    Control,
    cell::Cell,
    create, grant,
    lifecycle::verb,
    record::{ActorPhase, Placement},
    view::{self, ActorView},
};
use crate::{
    error::{Error, Result},
    model::{ActorRef, Audience, DnsLabel, Grant, NodeName},
};

/// Where and for whom an actor is resumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResumeOptions {
    /// None: the server's own node.
    pub node: Option<NodeName>,
    /// The container that mounts without a name are for.
    pub container: Option<DnsLabel>,
    /// The namespace of the pod; none: the actor's.
    pub pod_namespace: Option<DnsLabel>,
    /// The only pod that may present the grant.
    pub pod: Option<String>,
}

impl Control {
    /// Records the resume, waits until every volume is attached, and gives out the
    /// grant. When the time is over the resume goes on; asking again joins it.
    pub async fn resume_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        options: ResumeOptions,
        within: Duration,
    ) -> Result<(ActorView, Grant)> {
        let node = options.node.or_else(|| self.node_here().cloned());
        let node = node.ok_or_else(|| {
            Error::invalid("this control plane has no node of its own: say on which node the actor is to be resumed")
        })?;
        let cell = self.cell(actor)?;
        let (template, revision) = {
            let inner = cell.lock().await?;
            let there = inner.state.actor.as_ref();
            let there = there.ok_or_else(|| super::missing(actor))?;
            (there.template.clone(), there.template_revision)
        };
        let template = self.template(&template, revision).await?.0.template;
        let placement = Placement {
            node,
            audience: Audience::Pod {
                namespace: options.pod_namespace.unwrap_or(actor.namespace.clone()),
                pod: options.pod,
            },
            mounts: template.mounts(options.container.as_ref())?,
            devices: template.devices(options.container.as_ref())?,
            container: options.container,
        };
        let wanted = placement.clone();
        self.change(&cell, |state| {
            // Under the lock: a fence that comes later finds what is recorded here.
            self.may_resume_on(state, &placement.node)?;
            verb::resume(state, placement)
        })
        .await?;
        wait_for_grant(&cell, &wanted, within).await
    }
}

async fn wait_for_grant(
    cell: &Cell,
    wanted: &Placement,
    within: Duration,
) -> Result<(ActorView, Grant)> {
    let answer = cell
        .wait(within, |inner| {
            let Some(view) = view::actor_of(inner) else {
                return Some(Err(super::missing(&cell.name)));
            };
            let phase = view.actor.phase;
            let ours = view.actor.placement.as_ref() == Some(wanted);
            if !ours || !matches!(phase, ActorPhase::Resuming | ActorPhase::Resumed) {
                return Some(Err(Error::aborted(format!(
                    "the resume of actor {} was called off by another verb (it is {} now): try again",
                    cell.name,
                    phase.as_str()
                ))));
            }
            if let Some(grant) = grant::of(&inner.state) {
                return Some(Ok((view, grant)));
            }
            create::refused_volume(inner).map(Err)
        })
        .await?;
    match answer {
        Some(answer) => Ok(answer),
        None => Err(create::not_in_time(&*cell.lock().await?, "resumed")),
    }
}
