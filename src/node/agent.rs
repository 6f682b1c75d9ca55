// SPDX-License-Identifier: Apache-2.0
//! The service of the node agent: what the doors and the control plane call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    VolumeRecord,
    admit::{self, Admitted},
    anchor::Anchor,
    breach,
    budget::Budget,
    door::Door,
    drain::Drain,
    health,
    helper::Helpers,
    idmap::IdMap,
    lost,
    proof::Proof,
    records::Records,
    settings::{Authority, NodeSettings, Ports},
    sight::Maker,
    sweep::Sweep,
    volume::{Shared, Volume, Want},
};
use crate::{
    api::{annotation, grant},
    delivery::{self, Needs, Shown},
    error::{Error, Result},
    host::durable,
    keys::{KeySet, TrustedKeys},
    model::{ContainerView, DnsLabel, GrantVolume, RuntimeId, SandboxView, Scope, VolumeKey},
};

/// The node agent.
pub struct Agent {
    pub(super) settings: NodeSettings,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: RuntimeId,
    authority: Arc<dyn Authority>,
    keys: Arc<TrustedKeys>,
    budget: Budget,
    index: Mutex<Index>,
    /// Asks for a sweep before its time.
    pub(super) sweep_now: Notify,
    /// What the runtime's door tells of itself.
    pub(super) door: Mutex<Door>,
    /// Whether it is being emptied.
    pub(super) drain: Drain,
    /// Asks for a look for breaches before its time.
    pub(super) look_now: Notify,
    /// What those looks found.
    pub(super) found: Mutex<breach::Found>,
    /// Scopes of which it is not certain whether they live, and why.
    uncertain: Mutex<BTreeMap<Scope, String>>,
}

#[derive(Default)]
pub(super) struct Index {
    /// Volumes by the hash in their record's file name.
    pub(super) volumes: HashMap<String, Arc<Volume>>,
    /// Which volumes a sandbox has used, so that the events of all others cost
    /// one look-up.
    sandboxes: HashMap<String, SandboxUse>,
    /// Records that could not be read, by the same hash.
    pub(super) unreadable: BTreeMap<String, String>,
}

#[derive(Default)]
struct SandboxUse {
    volumes: BTreeSet<String>,
    /// Whether a container of it got a mount.
    matched: bool,
}

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
    /// Reads the records and takes up what they hold.
    pub fn start(
        settings: NodeSettings,
        ports: Ports,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>> {
        let records = Records::open(settings.layout.clone())?;
        let root = settings.layout.mount_root();
        durable::make_dir(root).map_err(|e| {
            Error::internal(format!("cannot make the mount root {}", root.display())).with_source(e)
        })?;
        let mut found = records.load()?;
        let lost = lost::find(&settings.layout, &found)?;
        found.unreadable.extend(lost);
        let shared = Arc::new(Shared {
            layout: settings.layout.clone(),
            records,
            drivers: ports.drivers,
            proof: Proof::new(&ports.cri, root),
            runtime: ports.cri.runtime_id()?,
            cri: ports.cri,
            helper: Maker {
                who: "the helper",
                socket: settings.helper.clone(),
                mount_root: root.into(),
            },
            helpers: Helpers::new(&settings.helper, Arc::clone(&ports.metrics)),
            vault: ports.vault,
            metrics: ports.metrics,
            member_grace: settings.member_grace,
            released: watch::Sender::new(0),
        });
        let mut index = Index::default();
        for (hash, error) in found.unreadable {
            tracing::error!(
                "record {hash} cannot be read, so its volume is never said to be released: {}",
                error.full_message()
            );
            index.unreadable.insert(hash, error.full_message());
        }
        let drain = Drain::of(settings.layout.state_dir());
        let agent = Arc::new(Self {
            drain,
            budget: Budget::new(settings.wait_percent, Instant::now()),
            runtime: shared.runtime.clone(),
            settings,
            shared: Arc::clone(&shared),
            authority: ports.authority,
            keys: Arc::clone(&ports.keys),
            index: Mutex::new(index),
            sweep_now: Notify::new(),
            door: Mutex::default(),
            look_now: Notify::new(),
            found: Mutex::default(),
            uncertain: Mutex::default(),
        });
        for record in found.records {
            // Its process was seen from here: so would others be.
            let mut anchors = record.publications.iter().filter_map(|p| p.anchor.as_ref());
            if anchors.any(Anchor::is_in_sight) {
                agent.shared.proof.seen();
            }
            agent.take_up(record);
        }
        agent.shared.metrics.draining(agent.is_draining());
        tokio::spawn(ports.keys.keep(shutdown.clone()));
        tokio::spawn(health::run(Arc::clone(&agent), shutdown.clone()));
        tokio::spawn(Arc::clone(&agent).look_for_breaches(shutdown.clone()));
        tokio::spawn(Sweep::new(Arc::clone(&agent)).run(shutdown));
        Ok(agent)
    }

    /// The public keys on disk have changed.
    pub async fn keys_changed(&self) {
        self.keys.look().await;
    }

    fn take_up(&self, record: VolumeRecord) {
        let hash = record.key.hash();
        let mut index = self.index();
        for publication in &record.publications {
            let Some(sandbox) = publication.scope.sandbox() else {
                continue;
            };
            let used = index.sandboxes.entry(sandbox.to_owned()).or_default();
            used.volumes.insert(hash.clone());
            // What happened before this start is not known: no alarm for it.
            used.matched = true;
        }
        let volume = Volume::new(Arc::clone(&self.shared), record);
        index.volumes.insert(hash, Arc::clone(&volume));
        drop(index);
        tokio::spawn(async move { volume.resume().await });
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uncertain(&self) -> MutexGuard<'_, BTreeMap<Scope, String>> {
        self.uncertain
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All volumes that this node has a record of.
    pub(super) fn volumes(&self) -> Vec<Arc<Volume>> {
        self.index().volumes.values().cloned().collect()
    }

    pub(super) fn volumes_of(&self, sandbox: &str) -> Vec<Arc<Volume>> {
        let index = self.index();
        let Some(used) = index.sandboxes.get(sandbox) else {
            return Vec::new();
        };
        used.volumes
            .iter()
            .filter_map(|hash| index.volumes.get(hash).cloned())
            .collect()
    }

    /// The volume, if there is a record of it that can be read.
    pub(super) fn known(&self, key: &VolumeKey) -> Option<Arc<Volume>> {
        self.index().volumes.get(&key.hash()).cloned()
    }

    /// Records that could not be read, by the hash in their file name.
    pub(super) fn unreadable(&self) -> BTreeMap<String, String> {
        self.index().unreadable.clone()
    }

    /// The volume, with a record that may be new.
    pub(super) fn volume(&self, key: &VolumeKey) -> Result<Arc<Volume>> {
        let hash = key.hash();
        let mut index = self.index();
        if let Some(why) = index.unreadable.get(&hash) {
            return Err(Error::internal(format!(
                "the record of {key} on this node cannot be read, so it is not known who uses it: {why}"
            )));
        }
        let volume = index.volumes.entry(hash).or_insert_with(|| {
            Volume::new(Arc::clone(&self.shared), VolumeRecord::new(key.clone()))
        });
        Ok(Arc::clone(volume))
    }

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
            &*self.authority,
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

    pub(super) fn authority(&self) -> &dyn Authority {
        &*self.authority
    }

    pub(super) fn trusted_keys(&self) -> Arc<KeySet> {
        self.keys.set()
    }

    /// A key may have come a moment ago.
    pub(super) async fn look_at_keys(&self, annotations: &BTreeMap<String, String>) {
        let raw = annotation::find(annotations).ok().flatten();
        let signature = raw.and_then(|raw| raw.signature());
        if signature.is_some_and(|s| self.keys.set().lacks_the_key_of(s)) {
            self.keys.look().await;
        }
    }

    /// A container is gone: stopped, removed, or never made.
    pub fn container_gone(self: &Arc<Self>, sandbox: &str, container: &str) {
        self.breaches_over(|b| b.container == container);
        let volumes = self.volumes_of(sandbox);
        if volumes.is_empty() {
            return;
        }
        let container = container.to_owned();
        tokio::spawn(async move {
            for volume in volumes {
                let gone = volume.members_gone(|_, member| member == container).await;
                volume.look_again().await;
                if let Err(error) = gone {
                    tracing::error!("{}", error.full_message());
                }
            }
        });
    }

    /// A sandbox is over: stopped or removed. Its scopes end; what is published
    /// is released once every member's exit is proven.
    pub fn sandbox_over(self: &Arc<Self>, sandbox: &str, why: &'static str) {
        self.breaches_over(|b| b.sandbox == sandbox);
        let volumes = self.volumes_of(sandbox);
        let Some(used) = self.index().sandboxes.remove(sandbox) else {
            return;
        };
        if !used.matched {
            tracing::error!(
                sandbox,
                "the sandbox ended and no container of it matched any mount of its grant: do the container names in the template and in the pod agree?"
            );
            self.shared.metrics.unmatched_grant();
        }
        let sandbox = sandbox.to_owned();
        tokio::spawn(async move {
            for volume in volumes {
                let over = |p: &super::Publication| {
                    (p.scope.sandbox() == Some(&sandbox)).then(|| why.to_owned())
                };
                volume.end(over).await;
            }
        });
    }

    /// The runtime told all that it has: look for what ended unseen.
    pub fn synchronized(&self) {
        self.lock_door().synchronized = true;
        self.sweep_now.notify_one();
        self.look_now.notify_one();
    }
}
