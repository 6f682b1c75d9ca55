// SPDX-License-Identifier: Apache-2.0
//! One actor in memory: its state, what the store holds of it, and whoever waits
//! for it to change. Every change goes through [`Cell::change`]: one batch, in the
//! store before it is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, MutexGuard as StdGuard, atomic::AtomicBool},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio_util::task::TaskTracker;

use super::{
    index,
    lifecycle::{self, State},
    record::{self, ActorRecord, AttachmentRecord, VolumePhase, VolumeRecord, key},
    store::{self, Reader, Revision, Store, Stored, Write},
};
use crate::{
    error::{Error, Result},
    model::{ActorRef, NodeName, VolumeUid},
};

/// One actor in memory.
pub(super) struct Cell {
    pub(super) name: ActorRef,
    /// The volume that it is about, where there is no actor any more.
    pub(super) alone: Option<VolumeUid>,
    store: Arc<dyn Store>,
    tasks: TaskTracker,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    /// Wakes the task that drives the actor.
    pub(super) kick: Notify,
    /// Volumes of which a step is under way.
    busy: std::sync::Mutex<BTreeSet<VolumeUid>>,
    /// Whether it stands among those that may be put back.
    pub(super) queued: AtomicBool,
}

/// What the lock of a cell guards.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) state: State,
    /// What the store holds of it.
    standing: BTreeMap<String, Stored>,
    /// Whether the store was not read yet, or a write failed, so that it may hold
    /// something else.
    stale: bool,
    /// Whether it was read before.
    read: bool,
    /// What it was before a failed write that was done all the same: others were
    /// not told of what it is.
    pub(super) untold: Option<State>,
    /// Whether the actor was removed and this cell is out of use.
    pub(super) gone: bool,
    /// Whether a task drives the actor.
    pub(super) driving: bool,
    /// Who holds a volume on a node, for people.
    pub(super) holders: BTreeMap<(VolumeUid, NodeName), String>,
    /// When nodes are asked again to expand what was not published there.
    pub(super) ask_later: BTreeMap<VolumeUid, Timestamp>,
}

impl Inner {
    /// What there is to show of a state that nobody works on.
    pub(super) fn of(state: State) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }
}

impl Cell {
    /// A cell of which the store is read when it is locked first.
    pub(super) fn unread(name: ActorRef, store: Arc<dyn Store>, tasks: TaskTracker) -> Self {
        let mut cell = Self::empty(name, store, tasks);
        cell.inner.get_mut().stale = true;
        cell
    }

    fn empty(name: ActorRef, store: Arc<dyn Store>, tasks: TaskTracker) -> Self {
        Self {
            name,
            alone: None,
            store,
            tasks,
            inner: Mutex::default(),
            changes: watch::Sender::default(),
            kick: Notify::new(),
            busy: std::sync::Mutex::default(),
            queued: AtomicBool::new(false),
        }
    }

    /// Volumes of which a step is under way.
    pub(super) fn busy(&self) -> StdGuard<'_, BTreeSet<VolumeUid>> {
        // Every change is one call: a panic elsewhere leaves it whole.
        self.busy.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A cell with what the store holds.
    pub(super) fn loaded(
        name: ActorRef,
        store: Arc<dyn Store>,
        tasks: TaskTracker,
        standing: BTreeMap<String, Stored>,
    ) -> Result<Self> {
        let mut cell = Self::empty(name, store, tasks);
        let inner = cell.inner.get_mut();
        inner.state = read_state(&standing)?;
        inner.standing = standing;
        inner.read = true;
        Ok(cell)
    }

    /// A cell of a retained volume that is to be deleted: it has no actor.
    pub(super) fn of_volume(
        volume: &VolumeRecord,
        stored: Stored,
        store: Arc<dyn Store>,
        tasks: TaskTracker,
    ) -> Result<Self> {
        let standing = [(key::volume(&volume.uid), stored)].into();
        let cell = Self::loaded(volume.actor.clone(), store, tasks, standing)?;
        Ok(Self {
            alone: Some(volume.uid.clone()),
            ..cell
        })
    }

    /// The state, after a look at the store where memory may be behind.
    pub(super) async fn lock(&self) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner.lock().await;
        if inner.stale {
            let (store, name) = (self.store.clone(), self.name.clone());
            let alone = self.alone.as_ref().map(key::volume);
            let load = move || match alone {
                Some(key) => {
                    let stored = store.get(&key)?;
                    Ok(stored.map(|stored| (key, stored)).into_iter().collect())
                }
                None => load_standing(&*store.snapshot()?, &name),
            };
            let standing = blocking(&self.tasks, load).await?;
            let last = std::mem::replace(&mut inner.state, read_state(&standing)?);
            inner.standing = standing;
            inner.stale = false;
            if std::mem::replace(&mut inner.read, true) && inner.untold.is_none() {
                inner.untold = Some(last);
            }
        }
        Ok(inner)
    }

    /// Makes the change of the locked state durable, then seen. `taken_in` are
    /// records of the next state that stood in the store without an owner.
    pub(super) async fn commit(
        &self,
        inner: &mut Inner,
        next: State,
        taken_in: BTreeMap<String, Stored>,
    ) -> Result<()> {
        let entries = write_state(&next)?;
        let mut standing = inner.standing.clone();
        let taken_in = taken_in.into_iter();
        standing.extend(taken_in.filter(|(key, _)| entries.contains_key(key)));
        let mut batch = difference(&standing, &entries);
        batch.extend(tombstones(&inner.standing, &entries)?);
        if !batch.is_empty() {
            // Until the answer is there, memory may be behind the store.
            inner.stale = true;
            let store = self.store.clone();
            let (batch, revision) = blocking(&self.tasks, move || {
                let revision = store.write(&batch)?;
                Ok((batch, revision))
            })
            .await?;
            inner.stale = false;
            apply(&mut inner.standing, batch, revision);
        }
        inner.state = next;
        // What is retained has no owner from here on: another actor may take it,
        // or it is deleted by itself.
        let retained = |v: &VolumeRecord| v.phase == VolumePhase::Retained;
        inner.state.volumes.retain(|_, v| !retained(v));
        let volumes = &inner.state.volumes;
        inner.standing.retain(|key, _| {
            let uid = key.strip_prefix(key::VOLUMES);
            uid.is_none_or(|uid| volumes.keys().any(|v| v.as_str() == uid))
        });
        let attachments = &inner.state.attachments;
        inner.holders.retain(|at, _| attachments.contains_key(at));
        let volumes = &inner.state.volumes;
        inner.ask_later.retain(|uid, _| volumes.contains_key(uid));
        self.announce();
        Ok(())
    }

    /// Whether nothing but the store needs to know of the actor. To be asked by
    /// whoever knows that nobody else has the cell.
    pub(super) fn is_idle(&self) -> bool {
        let Ok(inner) = self.inner.try_lock() else {
            return false;
        };
        !inner.driving && (inner.stale || lifecycle::is_idle(&inner.state))
    }

    /// Wakes whoever waits for a change.
    pub(super) fn announce(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Waits until the check has an answer, at most so long. None: it had none.
    pub(super) async fn wait<T>(
        &self,
        within: Duration,
        mut check: impl FnMut(&Inner) -> Option<Result<T>>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + within;
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(answer) = check(&*self.lock().await?) {
                return answer.map(Some);
            }
            let left = end.saturating_duration_since(Instant::now());
            // The sender lives in this cell: it does not close meanwhile.
            if tokio::time::timeout(left, changes.changed()).await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// Runs a call that blocks where that is allowed; the tracker counts it, also
/// when nobody waits for its answer any more.
pub(super) async fn blocking<T: Send + 'static>(
    tasks: &TaskTracker,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tasks.spawn_blocking(call).await;
    done.map_err(|e| Error::internal("a call to the store did not come to its end").with_source(e))?
}

/// Everything that the store holds of an actor; empty: it is not there.
pub(super) fn load_standing(
    reader: &dyn Reader,
    name: &ActorRef,
) -> Result<BTreeMap<String, Stored>> {
    let mut standing = BTreeMap::new();
    let key = key::actor(name);
    let Some(stored) = reader.get(&key)? else {
        return Ok(standing);
    };
    let actor: ActorRecord = record::decode(&key, &stored.value)?;
    standing.insert(key, stored);
    store::each_entry(reader, &index::volumes_of(&actor.uid), |entry, _| {
        let uid: VolumeUid = index::last_part(&entry).parse()?;
        standing.extend(load_volume(reader, &uid)?);
        Ok(())
    })?;
    Ok(standing)
}

/// A volume with its attachments.
pub(super) fn load_volume(
    reader: &dyn Reader,
    uid: &VolumeUid,
) -> Result<BTreeMap<String, Stored>> {
    let mut standing = BTreeMap::new();
    let key = key::volume(uid);
    if let Some(stored) = reader.get(&key)? {
        let attachments = format!("{}{uid}/", key::ATTACHMENTS);
        standing.extend(store::list_all(reader, &attachments)?);
        standing.insert(key, stored);
    }
    Ok(standing)
}

/// The records as they stand.
pub(super) fn decode_state(standing: &BTreeMap<String, Stored>) -> Result<State> {
    let mut state = State::default();
    for (key, stored) in standing {
        if key.starts_with(key::ACTORS) {
            state.actor = Some(record::decode(key, &stored.value)?);
        } else if key.starts_with(key::VOLUMES) {
            let volume: VolumeRecord = record::decode(key, &stored.value)?;
            state.volumes.insert(volume.uid.clone(), volume);
        } else {
            let found: AttachmentRecord = record::decode(key, &stored.value)?;
            let at = (found.volume.clone(), found.node.clone());
            state.attachments.insert(at, found);
        }
    }
    Ok(state)
}

/// The records as they are gone on with.
fn read_state(standing: &BTreeMap<String, Stored>) -> Result<State> {
    let mut state = decode_state(standing)?;
    lifecycle::restarted(&mut state);
    Ok(state)
}

fn write_state(state: &State) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut entries = BTreeMap::new();
    if let Some(actor) = &state.actor {
        entries.insert(key::actor(&actor.actor), record::encode(actor)?);
    }
    for (uid, volume) in &state.volumes {
        entries.insert(key::volume(uid), record::encode(volume)?);
    }
    for ((uid, node), attachment) in &state.attachments {
        entries.insert(key::attachment(uid, node), record::encode(attachment)?);
    }
    Ok(entries)
}

fn difference(
    standing: &BTreeMap<String, Stored>,
    entries: &BTreeMap<String, Vec<u8>>,
) -> Vec<Write> {
    let put = entries.iter().filter_map(|(key, value)| {
        let there = standing.get(key);
        let same = there.is_some_and(|s| &s.value == value);
        (!same).then(|| Write {
            key: key.clone(),
            expect: there.map(|s| s.revision),
            value: Some(value.clone()),
        })
    });
    let removed = standing
        .iter()
        .filter(|(key, _)| !entries.contains_key(*key));
    let remove = removed.map(|(key, stored)| Write {
        key: key.clone(),
        expect: Some(stored.revision),
        value: None,
    });
    put.chain(remove).collect()
}

/// A volume whose record goes leaves a tombstone, in the same batch.
fn tombstones(
    standing: &BTreeMap<String, Stored>,
    entries: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<Write>> {
    let gone = standing
        .iter()
        .filter(|(key, _)| key.starts_with(key::VOLUMES) && !entries.contains_key(*key));
    gone.map(|(key, stored)| {
        let volume: VolumeRecord = record::decode(key, &stored.value)?;
        Ok(Write {
            key: key::tombstone(&volume.uid),
            expect: None,
            value: Some(record::encode(&volume.tombstone(Timestamp::now()))?),
        })
    })
    .collect()
}

fn apply(standing: &mut BTreeMap<String, Stored>, batch: Vec<Write>, revision: Revision) {
    for write in batch {
        if write.key.starts_with(key::TOMBSTONES) {
            continue;
        }
        match write.value {
            Some(value) => standing.insert(write.key, Stored { revision, value }),
            None => standing.remove(&write.key),
        };
    }
}
