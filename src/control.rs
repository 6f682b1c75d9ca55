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
mod cells;
pub mod check;
mod convert;
mod counts;
mod crash;
mod create;
mod delete;
mod effect;
mod engine;
mod expand;
pub mod export;
mod grant;
pub mod index;
pub mod lifecycle;
mod limits;
mod list;
mod load;
pub mod nodes;
mod orphans;
mod port;
mod reconcile;
pub mod record;
mod resume;
mod revision;
mod rollout;
mod service;
mod sign;
mod storage_class;
pub mod store;
mod suspend;
mod template;
mod template_status;
mod told_keys;
mod tombstones;
mod untold;
mod update;
mod view;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use counts::CountsView;
pub use create::{Adopted, CreateOptions};
pub use list::{ActorFilter, VolumeFilter};
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
    store::Store,
};
use crate::{
    csi::Registry,
    error::{Error, Result},
    keys::KeyDir,
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
    /// Where the key is that grants are signed with; none: they are not signed.
    pub keys: Option<KeyDir>,
    /// The pauses between tries.
    pub pace: Pace,
    /// How often attachments are compared with what drivers list.
    pub reconcile_interval: Duration,
    /// How long the tombstones of deleted volumes are kept.
    pub keep_tombstones: Duration,
    /// Whether the node given to [`Control::open`] is one that actors run on: the
    /// one that is meant where none is named.
    pub node_here: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vault: Vault::default(),
            keys: None,
            pace: Pace::default(),
            reconcile_interval: Duration::from_secs(60),
            keep_tombstones: Duration::from_hours(30 * 24),
            node_here: true,
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
    counts: counts::Counts,
    watchers: watch::Hub,
    repairs: reconcile::Counters,
    /// Wakes whoever tells nodes of deleted volumes.
    untold: Notify,
    cells: cells::Cells,
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
    /// `node` is the node of this host.
    pub async fn open(
        store: Arc<dyn Store>,
        drivers: Arc<Registry>,
        nodes: Arc<dyn NodePort>,
        node: NodeName,
        settings: Settings,
    ) -> Result<Arc<Self>> {
        let tasks = TaskTracker::new();
        let loaded = {
            let (store, tracker) = (store.clone(), tasks.clone());
            blocking(&tasks, move || load::load(&store, &tracker)).await?
        };
        let control = Arc::new(Self {
            store,
            drivers,
            nodes,
            node,
            settings,
            limits: Limits::default(),
            rollouts: loaded.rollouts,
            counts: loaded.counts,
            watchers: watch::Hub::default(),
            repairs: reconcile::Counters::default(),
            untold: Notify::new(),
            cells: cells::Cells::default(),
            alone: Mutex::default(),
            grants: RwLock::default(),
            catalog: tokio::sync::Mutex::default(),
            tasks,
            stop: CancellationToken::new(),
        });
        let cells: Vec<_> = loaded.cells.into_iter().map(Arc::new).collect();
        // Every seat that may be taken is counted before anyone looks for one.
        for cell in &cells {
            control.limits.count(&cell.lock().await?.state);
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

    /// The node of this host.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The same, where actors run on it.
    fn node_here(&self) -> Option<&NodeName> {
        self.settings.node_here.then_some(&self.node)
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
        let (teller, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(teller.tell_the_untold()).await;
        });
        let (teller, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(teller.tell_the_keys()).await;
        });
    }

    fn renew_grant(&self, actor: &ActorRef, state: &State) {
        let grant = grant::of(state);
        self.nodes.word(actor, grant.as_ref());
        let mut grants = self.grants.write().unwrap_or_else(|e| e.into_inner());
        match grant {
            Some(grant) => grants.insert(actor.clone(), grant),
            None => grants.remove(actor),
        };
    }

    fn alone(&self) -> MutexGuard<'_, HashMap<VolumeUid, Arc<Cell>>> {
        // As with the cells: every change is one call.
        self.alone.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets the cell be found.
    fn enter(&self, cell: &Arc<Cell>) {
        match &cell.alone {
            Some(uid) => {
                self.alone().insert(uid.clone(), cell.clone());
            }
            None => self.cells.insert(cell),
        }
    }
}

fn missing(actor: &ActorRef) -> Error {
    Error::not_found(format!("actor {actor} does not exist"))
}
