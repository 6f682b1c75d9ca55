// SPDX-License-Identifier: Apache-2.0
//! Sandboxes that begin and containers that are created: what they are given.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    Agent,
    admit::{self, Admitted},
    idmap::IdMap,
    volume::{Volume, Want},
};
use crate::{
    api::grant,
    delivery::{self, Needs, Shown},
    error::Result,
    model::{ContainerView, DnsLabel, GrantVolume, SandboxView, Scope},
};

/// Until when a creation may wait.
#[derive(Clone, Copy)]
enum Wait {
    /// The runtime holds its lock meanwhile: there is a budget.
    InLock(Instant),
    /// Nobody waits but who asks.
    InPeace(Instant),
}

impl Wait {
    fn until(self) -> Instant {
        match self {
            Self::InLock(until) | Self::InPeace(until) => until,
        }
    }
}
impl Agent {
    /// A pod sandbox was started: publishing begins in the background.
    pub fn sandbox_started(self: &Arc<Self>, sandbox: SandboxView) {
        if !admit::asks(&sandbox, None) {
            return;
        }
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            // An error is reported where the container is created: failing the
            // sandbox would leak it in older runtimes.
            match agent.begun(&sandbox, None).await {
                Ok(Some(admitted)) => {
                    if let Err(error) = agent.may_have(&admitted, &sandbox).await {
                        tracing::warn!(?sandbox, "{}", error.message);
                        return;
                    }
                    for volume in &admitted.grant.volumes {
                        if let Err(error) = agent.want(&admitted, volume, &sandbox, None).await {
                            tracing::warn!(?sandbox, "{}", error.full_message());
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(?sandbox, "{}", error.full_message()),
            }
        });
    }

    /// A container is being created: waits for its volumes, not longer than
    /// `until` nor than the budget allows, and gives what it must have.
    pub async fn container_created(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        until: Instant,
    ) -> Result<Needs> {
        self.create(sandbox, container, Wait::InLock(until)).await
    }

    /// The same where the runtime holds no lock meanwhile.
    pub(super) async fn container_created_in_peace(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        until: Instant,
    ) -> Result<Needs> {
        self.create(sandbox, container, Wait::InPeace(until)).await
    }

    async fn create(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        wait: Wait,
    ) -> Result<Needs> {
        if !admit::asks(sandbox, Some(container)) {
            return Ok(Needs::default());
        }
        let given = self.deliver(sandbox, container, wait).await;
        self.shared.metrics.container(given.is_ok());
        given.map_err(|e| {
            let error = e.context(format!("actor-volumes: container {:?}", container.name));
            tracing::warn!(?sandbox, ?container, "{}", error.full_message());
            error
        })
    }

    async fn deliver(
        &self,
        sandbox: &SandboxView,
        container: &ContainerView,
        wait: Wait,
    ) -> Result<Needs> {
        let until = wait.until();
        let Some(admitted) = self.begun(sandbox, Some(container)).await? else {
            return Ok(Needs::default());
        };
        self.allow(&admitted, sandbox).await?;
        let needed = delivery::volumes_for(&admitted.grant, &container.name);
        let mut volumes = Vec::new();
        for grant in &admitted.grant.volumes {
            let needs = needed.iter().any(|n| n.name == grant.name);
            let member = needs.then_some(container.id.as_str());
            let volume = self.want(&admitted, grant, sandbox, member).await?;
            if needs {
                volumes.push((grant, volume));
            }
        }
        let mut waited = self.wait(&admitted.scope, &volumes, wait).await;
        if let Ok(published) = &mut waited
            && let Some(space) = &container.user_namespace
        {
            let asked = IdMap {
                scope: &admitted.scope,
                handler: &sandbox.handler,
                space,
            };
            if let Err(error) = self.map_ids(asked, &volumes, published, until).await {
                waited = Err(error);
            }
        }
        let needs =
            waited.and_then(|published| delivery::needs(&admitted.grant, &published, container));
        if needs.is_err() {
            // It will not run: only containers that were given the mount count.
            for (_, volume) in &volumes {
                volume
                    .members_gone(|_, member| member == container.id)
                    .await?;
            }
        } else if !volumes.is_empty()
            && let Some(used) = self.index().sandboxes.get_mut(&sandbox.id)
        {
            used.matched = true;
        }
        needs
    }

    /// Waits for the publications, within the budget.
    async fn wait(
        &self,
        scope: &Scope,
        volumes: &[(&GrantVolume, Arc<Volume>)],
        wait: Wait,
    ) -> Result<BTreeMap<DnsLabel, Shown>> {
        let until = match wait {
            Wait::InLock(until) => until,
            Wait::InPeace(until) => return self.join_all(scope, volumes, until).await,
        };
        let start = Instant::now();
        let mut may_wait = true;
        for (_, volume) in volumes {
            may_wait &= !volume.has_waited(scope).await;
        }
        let wish = until
            .saturating_duration_since(start)
            .min(self.settings.max_wait);
        let allowed = if may_wait {
            self.budget.take(wish, start)
        } else {
            Duration::ZERO
        };
        let deadline = start + allowed;
        let mut published = BTreeMap::new();
        let mut failed = None;
        for (grant, volume) in volumes {
            match volume.join(grant.name.as_str(), scope, deadline).await {
                Ok(shown) => {
                    let flags = self.flags(grant);
                    published.insert(grant.name.clone(), Shown { flags, ..shown });
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.budget
            .give_back(allowed.saturating_sub(start.elapsed()));
        match failed {
            Some(error) => Err(error),
            None => Ok(published),
        }
    }

    /// What is admitted, where its scope may begin or has begun.
    async fn begun(
        &self,
        sandbox: &SandboxView,
        container: Option<&ContainerView>,
    ) -> Result<Option<Admitted>> {
        let Some(admitted) = self.admitted(sandbox, container).await? else {
            return Ok(None);
        };
        // The time is looked at here alone.
        let in_time = grant::check_time(&admitted.grant, Timestamp::now());
        if in_time.is_err() && !self.has_begun(&admitted).await {
            in_time?;
        }
        Ok(Some(admitted))
    }

    /// Whether something was published, or asked for, in this scope before.
    async fn has_begun(&self, admitted: &Admitted) -> bool {
        for volume in &admitted.grant.volumes {
            if let Some(known) = self.known(&volume.key())
                && known.has_scope(&admitted.scope).await
            {
                return true;
            }
        }
        false
    }

    pub(super) async fn admitted(
        &self,
        sandbox: &SandboxView,
        container: Option<&ContainerView>,
    ) -> Result<Option<Admitted>> {
        // It may have come a moment ago.
        if admit::lacks_key(&self.keys.set(), sandbox, container) {
            self.keys.look().await;
        }
        admit::admit(
            &self.settings,
            &self.keys.set(),
            self.authority(),
            &self.runtime,
            sandbox,
            container,
        )
    }

    async fn want(
        &self,
        admitted: &Admitted,
        grant: &GrantVolume,
        sandbox: &SandboxView,
        member: Option<&str>,
    ) -> Result<Arc<Volume>> {
        let key = grant.key();
        self.check_drain(&key, &admitted.scope).await?;
        let volume = self.volume(&key)?;
        self.index()
            .sandboxes
            .entry(sandbox.id.clone())
            .or_default()
            .volumes
            .insert(key.hash());
        volume
            .want(Want {
                pod: format!("{}/{}", sandbox.namespace, sandbox.name),
                member,
                ..admitted.want(grant)
            })
            .await?;
        Ok(volume)
    }
}
