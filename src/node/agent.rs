// SPDX-License-Identifier: Apache-2.0
//! The service of the node agent: what the doors and the control plane call.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    VolumeRecord,
    anchor::Anchor,
    breach,
    budget::Budget,
    door::Door,
    drain::Drain,
    health,
    helper::Helpers,
    lost,
    proof::Proof,
    records::Records,
    settings::{Authority, NodeSettings, Ports},
    sight::Maker,
    sweep::Sweep,
    volume::{Shared, Volume},
};
use crate::{
    api::annotation,
    error::{Error, Result},
    host::durable,
    keys::{KeySet, TrustedKeys},
    model::{RuntimeId, Scope, VolumeKey},
};

/// The node agent.
pub struct Agent {
    pub(super) settings: NodeSettings,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: RuntimeId,
    authority: Arc<dyn Authority>,
    pub(super) keys: Arc<TrustedKeys>,
    pub(super) budget: Budget,
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
    pub(super) sandboxes: HashMap<String, SandboxUse>,
    /// Records that could not be read, by the same hash.
    pub(super) unreadable: BTreeMap<String, String>,
}

#[derive(Default)]
pub(super) struct SandboxUse {
    pub(super) volumes: BTreeSet<String>,
    /// Whether a container of it got a mount.
    pub(super) matched: bool,
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
