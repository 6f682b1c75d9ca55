// SPDX-License-Identifier: Apache-2.0
//! The control plane: creates, attaches, detaches and deletes volumes; owns actors and templates.
//!
//! A verb changes records and returns; what follows from the records is done by
//! the engine, step by step, whether anyone waits for it or not:
//!
//! ```text
//!   service ──▶ verbs ──▶ records (store) ──▶ lifecycle::plan ──▶ steps
//!                            ▲                                     │
//!                            └── lifecycle::finish ◀── effect ◀────┘
//!                                                    (csi, NodePort)
//! ```

mod adopt;
mod cell;
mod convert;
mod crash;
mod create;
mod delete;
mod effect;
mod engine;
mod expand;
mod grant;
pub mod lifecycle;
mod limits;
mod list;
mod orphans;
mod port;
mod reconcile;
pub mod record;
mod resume;
mod revision;
mod rollout;
mod service;
mod storage_class;
pub mod store;
mod suspend;
mod template;
mod template_status;
mod tombstones;
mod update;
mod view;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use create::{Adopted, CreateOptions};
pub use orphans::{Orphan, Which};
pub use port::NodePort;
pub use reconcile::Repairs;
pub use resume::ResumeOptions;
pub use service::ControlService;
pub use view::{ActorView, Applied, StatsView, TemplateStatus, TemplateView, VolumeView};
pub use watch::{ActorEvent, Watch};

use self::{
    cell::{Cell, blocking},
    lifecycle::{Pace, State},
    limits::Limits,
    record::{ActorRecord, AttachmentRecord, VolumeRecord, key},
    store::{Store, Stored},
};
use crate::{
    csi::Registry,
    error::{Error, Result},
    model::{ActorRef, Grant, NodeName, VolumeUid},
    secret::Vault,
};

/// How long a verb waits when its caller does not say.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// What the control plane is told by its configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the secrets of calls are read from.
    pub vault: Vault,
    /// The pauses between tries.
    pub pace: Pace,
    /// How often attachments are compared with what drivers list.
    pub reconcile_interval: Duration,
    /// How long the tombstones of deleted volumes are kept.
    pub keep_tombstones: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vault: Vault::default(),
            pace: Pace::default(),
            reconcile_interval: Duration::from_secs(60),
            keep_tombstones: Duration::from_hours(30 * 24),
        }
    }
}

/// The control plane.
pub struct Control {
    store: Arc<dyn Store>,
    drivers: Arc<Registry>,
    nodes: Arc<dyn NodePort>,
    node: NodeName,
    settings: Settings,
    limits: Limits,
    rollouts: rollout::Index,
    watchers: watch::Hub,
    repairs: reconcile::Counters,
    cells: Mutex<HashMap<ActorRef, Arc<Cell>>>,
    /// Retained volumes that are being deleted, without an actor.
    alone: Mutex<HashMap<VolumeUid, Arc<Cell>>>,
    grants: RwLock<HashMap<ActorRef, Grant>>,
    /// Held while templates and classes change, and while an actor is created
    /// from them: what is in use is judged on a standing picture.
    catalog: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Control {
    /// Reads the records and goes on with what they say is under way.
    ///
    /// `node` is the one node that it serves.
    pub async fn open(
        store: Arc<dyn Store>,
        drivers: Arc<Registry>,
        nodes: Arc<dyn NodePort>,
        node: NodeName,
        settings: Settings,
    ) -> Result<Arc<Self>> {
        let tasks = TaskTracker::new();
        let cells = {
            let (store, tracker) = (store.clone(), tasks.clone());
            blocking(&tasks, move || load(&store, &tracker)).await?
        };
        let control = Arc::new(Self {
            store,
            drivers,
            nodes,
            node,
            settings,
            limits: Limits::default(),
            rollouts: rollout::Index::default(),
            watchers: watch::Hub::default(),
            repairs: reconcile::Counters::default(),
            cells: Mutex::default(),
            alone: Mutex::default(),
            grants: RwLock::default(),
            catalog: tokio::sync::Mutex::default(),
            tasks,
            stop: CancellationToken::new(),
        });
        let cells: Vec<_> = cells.into_iter().map(Arc::new).collect();
        // Every seat that may be taken is counted before anyone looks for one.
        for cell in &cells {
            let inner = cell.lock().await?;
            control.limits.count(&inner.state);
            control.rollouts.follow(&State::default(), &inner.state);
        }
        for cell in cells {
            control.enter(&cell);
            let mut inner = cell.lock().await?;
            if cell.alone.is_none() {
                control.renew_grant(&cell.name, &inner.state);
            }
            control.drive(&cell, &mut inner);
        }
        for template in control.rollouts.waiting() {
            control.go_on_with(template);
        }
        control.keep_house();
        Ok(control)
    }

    /// Ends all tasks and all verbs that wait. What is under way goes on from the records at the next start.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The node that it serves.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The control plane's current word on an actor: its grant while it is
    /// resumed. From memory, at once.
    pub fn current_grant(&self, actor: &ActorRef) -> Option<Grant> {
        let grants = self.grants.read().unwrap_or_else(|e| e.into_inner());
        grants.get(actor).cloned()
    }

    /// What is done from time to time.
    fn keep_house(self: &Arc<Self>) {
        let (pruner, reconciler) = (self.clone(), self.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(pruner.prune_tombstones()).await;
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(reconciler.reconcile()).await;
        });
    }

    fn renew_grant(&self, actor: &ActorRef, state: &State) {
        let grant = grant::of(state);
        let mut grants = self.grants.write().unwrap_or_else(|e| e.into_inner());
        match grant {
            Some(grant) => grants.insert(actor.clone(), grant),
            None => grants.remove(actor),
        };
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<ActorRef, Arc<Cell>>> {
        // Every change to the map is one call: a panic elsewhere leaves it whole.
        self.cells.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The actor's cell.
    fn cell(&self, actor: &ActorRef) -> Result<Arc<Cell>> {
        let found = self.cells().get(actor).cloned();
        found.ok_or_else(|| missing(actor))
    }

    fn alone(&self) -> MutexGuard<'_, HashMap<VolumeUid, Arc<Cell>>> {
        // As with the cells: every change is one call.
        self.alone.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets the cell be found.
    fn enter(&self, cell: &Arc<Cell>) {
        match &cell.alone {
            Some(uid) => self.alone().insert(uid.clone(), cell.clone()),
            None => self.cells().insert(cell.name.clone(), cell.clone()),
        };
    }

    fn drop_cell(&self, cell: &Arc<Cell>) {
        if let Some(uid) = &cell.alone {
            self.alone().remove(uid);
            return;
        }
        let mut cells = self.cells();
        if cells.get(&cell.name).is_some_and(|c| Arc::ptr_eq(c, cell)) {
            cells.remove(&cell.name);
        }
    }
}

fn missing(actor: &ActorRef) -> Error {
    Error::not_found(format!("actor {actor} does not exist"))
}

/// All actors, each with its volumes and their attachments; and volumes that are
/// being deleted without one.
fn load(store: &Arc<dyn Store>, tasks: &TaskTracker) -> Result<Vec<Cell>> {
    let mut actors: BTreeMap<_, (ActorRef, BTreeMap<String, Stored>)> = BTreeMap::new();
    for (key, stored) in store::list_all(&**store, key::ACTORS)? {
        let actor: ActorRecord = record::decode(&key, &stored.value)?;
        let records = [(key, stored)].into();
        actors.insert(actor.uid, (actor.actor, records));
    }
    let mut owners = BTreeMap::new();
    let mut alone = Vec::new();
    for (key, stored) in store::list_all(&**store, key::VOLUMES)? {
        let volume: VolumeRecord = record::decode(&key, &stored.value)?;
        if volume.released {
            let cell = Cell::of_volume(&volume, stored, store.clone(), tasks.clone())?;
            alone.push(cell);
            continue;
        }
        // A retained one is nobody's.
        if volume.is_nobodys() {
            continue;
        }
        if let Some((_, records)) = actors.get_mut(&volume.actor_uid) {
            records.insert(key, stored);
            owners.insert(volume.uid, volume.actor_uid);
        }
    }
    for (key, stored) in store::list_all(&**store, key::ATTACHMENTS)? {
        let attachment: AttachmentRecord = record::decode(&key, &stored.value)?;
        let owner = owners.get(&attachment.volume);
        if let Some((_, records)) = owner.and_then(|uid| actors.get_mut(uid)) {
            records.insert(key, stored);
        }
    }
    actors
        .into_values()
        .map(|(name, records)| Cell::loaded(name, store.clone(), tasks.clone(), records))
        .chain(alone.into_iter().map(Ok))
        .collect()
}
