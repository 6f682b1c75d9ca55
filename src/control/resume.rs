// SPDX-License-Identifier: Apache-2.0
//! `actor resume`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Control,
    adopt::Adoption,
    cell::Cell,
    create::{self, Adopted},
    grant,
    lifecycle::{
        State,
        verb::{self, Call, Revision},
    },
    record::{ActorPhase, Placement, RequestId, TemplateRevision, VerbName},
    view::{self, ActorView},
};
use crate::{
    error::{Error, Kind, Result},
    model::{ActorRef, Audience, DnsLabel, Grant, NodeName},
};

/// A node that is there has this long to take in a grant, also at the end of a wait.
const TOLD_AT_LEAST: Duration = Duration::from_secs(1);

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
    /// Not for a pod: for a container that no pod holds, maybe only the one of this id.
    pub host: Option<Option<String>>,
    /// When a pod may begin to use the grant at the latest.
    pub not_after: Option<Timestamp>,
    /// Retained volumes to stand for volumes that were never made.
    pub volumes: Adopted,
    /// What its client named the request.
    pub request: Option<RequestId>,
}

impl Control {
    /// Records the resume, waits until every volume is attached, and gives out the
    /// grant. When the time is over the resume goes on; asking again joins it.
    ///
    /// A suspend that has not come to its end is waited for first.
    pub async fn resume_actor(
        self: &Arc<Self>,
        actor: &ActorRef,
        options: ResumeOptions,
        within: Duration,
    ) -> Result<(ActorView, Grant)> {
        let end = Instant::now() + within;
        let node = options.node.or_else(|| self.node_here().cloned());
        let node = node.ok_or_else(|| {
            Error::invalid("this control plane has no node of its own: say on which node the actor is to be resumed")
        })?;
        let arguments = (
            &node,
            &options.container,
            &options.pod_namespace,
            &options.pod,
            &options.volumes,
        );
        // A request of an earlier version, which knew no such time, stays the same.
        let call = match (&options.host, options.not_after) {
            (None, None) => Call::new(VerbName::Resume, options.request, &arguments),
            (None, Some(end)) => Call::new(VerbName::Resume, options.request, &(arguments, end)),
            (Some(container), end) => Call::new(
                VerbName::Resume,
                options.request,
                &(arguments, "host", container, end),
            ),
        };
        let audience = match options.host {
            None => Audience::Pod {
                namespace: options.pod_namespace.unwrap_or(actor.namespace.clone()),
                pod: options.pod,
            },
            Some(_) if options.pod_namespace.is_some() || options.pod.is_some() => {
                return Err(Error::invalid(
                    "a grant is for a pod or for a container that no pod holds: name a pod, or ask for the host, not both",
                ));
            }
            Some(container) => Audience::Host {
                node: node.clone(),
                container,
            },
        };
        let placement = Placement {
            node,
            audience,
            not_after: options.not_after,
            mounts: Vec::new(),
            devices: Vec::new(),
            container: options.container,
        };
        let cell = loop {
            let cell = self.cell(actor).await?;
            wait_for_suspend(&cell, end).await?;
            let begun = self
                .begin_resume(&cell, &call, &placement, &options.volumes)
                .await;
            match begun {
                Ok(Begun::Now) => break cell,
                Ok(Begun::Before) => {
                    check_current(&cell, &call).await?;
                    break cell;
                }
                Ok(Begun::Overtaken) => {}
                // A suspend came in between.
                Err(e) if e.kind() == Kind::Aborted && is_suspending(&cell).await => {}
                Err(e) => return Err(e),
            }
        };
        let left = end.saturating_duration_since(Instant::now());
        let granted = wait_for_grant(&cell, &placement, left).await?;
        self.wait_for_node(&placement.node, end).await?;
        Ok(granted)
    }

    /// A pod may be started as soon as the verb answers: the node knows the grant then.
    async fn wait_for_node(&self, node: &NodeName, end: Instant) -> Result<()> {
        let told = self.nodes.told(node);
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(TOLD_AT_LEAST), told).await {
            Ok(told) => told,
            Err(_) => {
                let why = self.nodes.admits(node).err();
                let why = why.map_or("it does not answer".into(), |e| e.full_message());
                Err(Error::unavailable(format!(
                    "the actor is resumed, and its node does not know it yet: {why}: ask again"
                )))
            }
        }
    }

    /// Moves the actor to the newest revision and resumes it, in one batch.
    async fn begin_resume(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        call: &Call,
        placement: &Placement,
        volumes: &Adopted,
    ) -> Result<Begun> {
        // Of two who want the same volume, the second finds it taken.
        let _standing = match volumes.is_empty() {
            true => None,
            false => Some(self.catalog.lock().await),
        };
        let there = cell.lock().await?.state.actor.clone();
        let there = there.ok_or_else(|| super::missing(&cell.name))?;
        let newest = self.template(&there.template, 0).await?.0;
        let to = match there.phase {
            ActorPhase::Suspended if there.template_revision < newest.revision => {
                Some(self.revision_for(&there, &newest).await?)
            }
            _ => None,
        };
        let found = self.retained(volumes).await?;
        self.change_with(cell, &found, |state| {
            // Under the lock: a fence that comes later finds what is recorded here.
            self.may_resume_on(state, &placement.node)?;
            if let Some(actor) = &state.actor
                && actor.phase == ActorPhase::Suspended
                && (actor.uid != there.uid
                    || actor.template_revision > newest.revision
                    || actor.template_revision < newest.revision && to.is_none())
            {
                return Ok(Begun::Overtaken);
            }
            let now = verb::perform(state, call, |state| {
                move_and_resume(state, to.as_ref(), &newest, &found, placement.clone())
            })?;
            Ok(if now { Begun::Now } else { Begun::Before })
        })
        .await
    }
}

enum Begun {
    /// It is under way.
    Now,
    /// This very request did it before.
    Before,
    /// The actor is not what it was: look again.
    Overtaken,
}

fn move_and_resume(
    state: &mut State,
    to: Option<&Revision>,
    newest: &TemplateRevision,
    found: &[Adoption],
    mut placement: Placement,
) -> Result<()> {
    let suspended = |s: &State| {
        let phase = s.actor.as_ref().map(|a| a.phase);
        phase == Some(ActorPhase::Suspended)
    };
    if suspended(state) {
        let container = placement.container.as_ref();
        placement.mounts = newest.template.mounts(container)?;
        placement.devices = newest.template.devices(container)?;
        if let Some(to) = to {
            verb::revise(state, to)?;
        }
    }
    found.iter().try_for_each(|a| a.apply(state))?;
    verb::resume(state, placement)
}

async fn is_suspending(cell: &Cell) -> bool {
    match cell.lock().await {
        Ok(inner) => suspending(&inner.state),
        Err(_) => false,
    }
}

fn suspending(state: &State) -> bool {
    let actor = state.actor.as_ref();
    actor.is_some_and(|a| a.phase == ActorPhase::Suspending && a.deletion.is_none())
}

/// Waits while the actor is being suspended; then says what that waits for.
async fn wait_for_suspend(cell: &Cell, end: Instant) -> Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let over = cell
        .wait(left, |inner| (!suspending(&inner.state)).then_some(Ok(())))
        .await?;
    if over.is_some() {
        return Ok(());
    }
    let inner = cell.lock().await?;
    let by = inner.state.actor.as_ref().map(verb::holder_of);
    Err(Error::aborted(format!(
        "actor {} is still being suspended by {}: {}: try again",
        cell.name,
        by.unwrap_or_default(),
        view::message_of(&inner)
    )))
}

/// Of a request that was carried out before, whether what it led to still stands.
async fn check_current(cell: &Cell, call: &Call) -> Result<()> {
    let inner = cell.lock().await?;
    let actor = inner.state.actor.as_ref();
    if actor.is_some_and(|a| verb::is_current(a, call)) {
        return Ok(());
    }
    Err(Error::aborted(format!(
        "the resume of actor {} that this request asked for is over: ask with another request id",
        cell.name
    )))
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
            let ours = view.actor.placement.as_ref().is_some_and(|p| p.is_for(wanted));
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
