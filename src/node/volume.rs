// SPDX-License-Identifier: Apache-2.0
//! One volume on this node: what is asked of it. Who waits for it is in `join`,
//! the task that carries it out in `worker`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Mutex, Notify, watch};

use super::{
    Layout, Phase, Publication, SubMount, VolumeRecord, anchor::Anchor, expand::Expansion,
    helper::Helpers, plan::Passed, proof::Proof, record::Usage, records::Records, sight::Maker,
    stats::Stats, stuck::Pending,
};
use crate::{
    cri::Cri,
    csi::{Driver, Registry},
    error::{Error, Kind, Result},
    model::{
        ActorRef, ActorUid, DriverName, Generation, GrantVolume, RuntimeId, Scope, SubPath,
        VolumeKey,
    },
    secret::Vault,
    telemetry::Metrics,
};

/// What all volumes share.
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) records: Records,
    pub(super) drivers: Arc<Registry>,
    pub(super) cri: Cri,
    pub(super) runtime: RuntimeId,
    pub(super) proof: Proof,
    pub(super) helpers: Helpers,
    /// Where the helper is, and where it mounts.
    pub(super) helper: Maker,
    pub(super) vault: Vault,
    pub(super) metrics: Arc<Metrics>,
    pub(super) member_grace: Duration,
    /// Counts releases, for whoever waits for one.
    pub(super) released: watch::Sender<u64>,
}

impl Shared {
    /// The driver, once it is proven that its mounts would be seen: else a mount that
    /// is there would be taken for none (I8).
    pub(super) async fn driver_in_sight(&self, name: &DriverName) -> Result<Arc<Driver>> {
        let driver = self.drivers.get(name)?;
        let maker = driver.node_socket().map(|socket| Maker {
            who: "the driver",
            socket: socket.to_owned(),
            mount_root: driver.map_path(self.layout.mount_root()),
        });
        self.proof.sight_of(maker).await?;
        Ok(driver)
    }
}

/// One volume.
pub(super) struct Volume {
    pub(super) key: VolumeKey,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State>,
    /// Changes with every step, for those who wait for a publication.
    pub(super) changed: watch::Sender<u64>,
    /// Wakes the task.
    pub(super) wake: Notify,
}

/// The record, and what is known of it in memory alone.
pub(super) struct State {
    pub(super) record: VolumeRecord,
    /// Whether the task runs.
    pub(super) running: bool,
    /// The last step failed.
    pub(super) failure: Option<Failure>,
    /// Whether the record on disk is behind: what it lacks would be found again
    /// after a restart, and goes with the next intent.
    pub(super) unsaved: bool,
    /// Whether a step, and maybe a CSI call, is under way.
    pub(super) calling: bool,
    /// Until then none begins.
    pub(super) quiet_until: Option<Instant>,
    /// Why a scope that is over is not released yet; no scope: the staging.
    pub(super) held_by: HashMap<Option<Scope>, Hold>,
    /// What came of NodeExpandVolume.
    pub(super) expansion: Expansion,
    /// What NodeGetVolumeStats told.
    pub(super) stats: Stats,
    /// What is begun and not done.
    pub(super) pending: Pending,
    /// Scopes published by this process that no container has joined, since when.
    pub(super) fresh: HashMap<Scope, Instant>,
    /// Since when a container scope has had no member.
    pub(super) memberless: HashMap<Scope, Instant>,
    /// Scopes whose containers have waited already.
    pub(super) waited: HashSet<Scope>,
}

/// Somebody who still uses the volume, and when to look again.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) by: String,
    pub(super) look_at: Instant,
}

/// A call that failed, and when it is tried again.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) attempts: u32,
    pub(super) kind: Kind,
    pub(super) message: String,
    pub(super) last: Instant,
    pub(super) retry_at: Instant,
}

/// The first repetition comes after this long.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// And none after more than this.
const LAST_RETRY: Duration = Duration::from_secs(15);

impl Failure {
    /// The failure that follows `before`.
    pub(super) fn after(before: Option<&Self>, error: &Error) -> Self {
        let attempts = before.map_or(0, |f| f.attempts) + 1;
        let wait = FIRST_RETRY
            .saturating_mul(1 << (attempts - 1).min(10))
            .min(LAST_RETRY)
            .mul_f64(0.75 + fastrand::f64() / 2.0);
        let last = Instant::now();
        Self {
            attempts,
            kind: error.kind(),
            message: error.full_message(),
            last,
            retry_at: last + wait,
        }
    }

    /// Somebody asks: what has failed a while ago is tried again now.
    pub(super) fn hurry(&mut self) {
        if self.last.elapsed() > Duration::from_secs(1) {
            self.retry_at = Instant::now();
        }
    }
}

impl State {
    fn new(record: VolumeRecord) -> Self {
        Self {
            record,
            running: false,
            unsaved: false,
            failure: None,
            calling: false,
            quiet_until: None,
            held_by: HashMap::new(),
            expansion: Expansion::default(),
            stats: Stats::default(),
            pending: Pending::default(),
            fresh: HashMap::new(),
            memberless: HashMap::new(),
            waited: HashSet::new(),
        }
    }

    /// What the plan passes over for now.
    pub(super) fn passed(&self, now: Instant) -> Passed {
        let waiting = self.held_by.iter().filter(|(_, hold)| hold.look_at > now);
        let mut passed = Passed {
            expand: self.expansion.rests(now),
            ..Passed::default()
        };
        for (scope, _) in waiting {
            match scope {
                Some(scope) => {
                    passed.unpublish.insert(scope.clone());
                }
                None => passed.unstage = true,
            }
        }
        passed
    }
}

/// Who wants the volume.
pub(super) struct Want<'a> {
    pub(super) volume: &'a GrantVolume,
    pub(super) scope: &'a Scope,
    pub(super) actor: ActorRef,
    pub(super) actor_uid: ActorUid,
    pub(super) pod: String,
    pub(super) read_only: bool,
    /// The directories of it that are mounted.
    pub(super) sub_paths: BTreeSet<SubPath>,
    /// The container that is being created.
    pub(super) member: Option<&'a str>,
    /// By what a container that no pod holds is seen to live.
    pub(super) anchor: Option<Anchor>,
}

impl Volume {
    pub(super) fn new(shared: Arc<Shared>, record: VolumeRecord) -> Arc<Self> {
        Arc::new(Self {
            key: record.key.clone(),
            shared,
            state: Mutex::new(State::new(record)),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
        })
    }

    /// Asks for a publication in this scope. When it returns the intent is
    /// durable and the work has begun.
    pub(super) async fn want(self: &Arc<Self>, want: Want<'_>) -> Result<()> {
        let mut state = self.state.lock().await;
        let record = &state.record;
        let name = &want.volume.name;
        if let Some(known) = &record.uid
            && *known != want.volume.uid
        {
            return Err(Error::denied(format!(
                "volume {name} of actor {} has uid {}, but this node knows {} as {known}: the grant is wrong",
                want.actor, want.volume.uid, self.key
            )));
        }
        let generation = want.volume.generation;
        if generation <= record.revoked || generation < record.highest {
            let over = record.highest.max(record.revoked);
            return Err(Error::precondition(format!(
                "the grant of actor {} is over: it is for generation {generation} of volume {name}, and generation {over} was suspended or granted again since: resume the actor and use the annotations that this gives",
                want.actor
            )));
        }
        let mut next = record.clone();
        // Older generations are over with the acceptance of a newer one.
        for older in &mut next.publications {
            if older.request.generation < generation && older.ending.is_none() {
                older.ending = Some(format!("generation {generation} was granted"));
            }
        }
        next.uid = Some(want.volume.uid.clone());
        next.highest = generation;
        match next.publication_mut(want.scope) {
            Some(found) => {
                if let Some(why) = &found.ending {
                    return Err(Error::unavailable(format!(
                        "{} is ending ({why}), and volume {name} is being released: retry in a new sandbox",
                        want.scope
                    )));
                }
                if !found.has_sub_paths(&want.sub_paths) {
                    return Err(Error::precondition(format!(
                        "generation {generation} of volume {name} was granted with other subPaths for {}: resume the actor and use the annotations that this gives",
                        want.scope
                    )));
                }
                if let Some(member) = want.member {
                    found.members.insert(member.to_owned());
                    found.listed = true;
                }
            }
            None => next.publications.push(Publication {
                scope: want.scope.clone(),
                volume: want.volume.name.to_string(),
                pod: want.pod,
                actor: want.actor,
                actor_uid: want.actor_uid,
                phase: Phase::Absent,
                read_only: want.read_only,
                request: Usage::of(want.volume),
                identity: None,
                file_system: String::new(),
                device: None,
                sub_paths: SubMount::of(want.sub_paths),
                corrupt: None,
                members: want.member.map(str::to_owned).into_iter().collect(),
                asked_at: Some(Timestamp::now()),
                listed: want.member.is_some(),
                ending: None,
                anchor: want.anchor,
            }),
        }
        state.memberless.remove(want.scope);
        if want.member.is_none() && want.scope.has_members() {
            state.memberless.insert(want.scope.clone(), Instant::now());
        }
        if next != state.record {
            self.save(&mut state, next).await?;
        }
        if let Some(failure) = &mut state.failure {
            failure.hurry();
        }
        self.start(&mut state);
        Ok(())
    }

    /// Whether the scope has a publication, wherever that stands.
    pub(super) async fn has_scope(&self, scope: &Scope) -> bool {
        self.state.lock().await.record.publication(scope).is_some()
    }

    /// Puts the record on disk, then in place.
    pub(super) async fn save(&self, state: &mut State, next: VolumeRecord) -> Result<()> {
        self.shared.records.write(&next).await?;
        state.record = next;
        state.unsaved = false;
        Ok(())
    }

    /// Ends every scope for which `over` gives a reason.
    pub(super) async fn end(self: &Arc<Self>, over: impl Fn(&Publication) -> Option<String>) {
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        for publication in &mut next.publications {
            if publication.ending.is_none() {
                publication.ending = over(publication);
            }
        }
        if next != state.record {
            // Not on disk yet: after a restart the sweep would find it again.
            state.record = next;
            state.unsaved = true;
        }
        if state.record.publications.iter().any(|p| p.ending.is_some()) {
            self.start(&mut state);
        }
    }

    /// These scopes are known to the runtime. It goes to disk with the next write.
    pub(super) async fn listed(&self, scopes: &HashSet<Scope>) {
        let mut state = self.state.lock().await;
        let State {
            record, unsaved, ..
        } = &mut *state;
        for publication in &mut record.publications {
            if !publication.listed && scopes.contains(&publication.scope) {
                publication.listed = true;
                *unsaved = true;
            }
        }
    }

    /// The containers that `gone` names are no members any more.
    pub(super) async fn members_gone(
        self: &Arc<Self>,
        gone: impl Fn(&Scope, &str) -> bool,
    ) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        let mut memberless = Vec::new();
        for publication in &mut next.publications {
            let scope = publication.scope.clone();
            let before = publication.members.len();
            publication.members.retain(|m| !gone(&scope, m));
            if publication.members.len() < before
                && publication.members.is_empty()
                && scope.has_members()
            {
                memberless.push(scope);
            }
        }
        if next == state.record {
            return Ok(());
        }
        let now = Instant::now();
        for scope in memberless {
            state.memberless.insert(scope, now);
        }
        let written = self.shared.records.write(&next).await;
        state.record = next;
        self.start(&mut state);
        written
    }

    /// Generations up to this one are over. Durable when it returns.
    pub(super) async fn revoke(self: &Arc<Self>, generation: Generation) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut next = state.record.clone();
        next.revoked = next.revoked.max(generation);
        for publication in &mut next.publications {
            if publication.request.generation <= generation && publication.ending.is_none() {
                publication.ending = Some(format!("generation {generation} was revoked"));
            }
        }
        if next != state.record {
            self.save(&mut state, next).await?;
        }
        self.start(&mut state);
        Ok(())
    }

    /// What still holds the volume here, for people; none: it is released.
    pub(super) async fn held(&self) -> Option<String> {
        let state = self.state.lock().await;
        if state.record.is_released() {
            return None;
        }
        let held_by = |scope: Option<&Scope>| {
            let hold = state.held_by.get(&scope.cloned());
            hold.map_or(String::new(), |hold| format!(": {}", hold.by))
        };
        let mut parts: Vec<String> = state
            .record
            .publications
            .iter()
            .map(|p| format!("{}{}", p.user(), held_by(Some(&p.scope))))
            .collect();
        if parts.is_empty() {
            parts.push(format!("being unstaged{}", held_by(None)));
        }
        let mut text = parts.join("; ");
        if let Some(failure) = &state.failure {
            text.push_str(&format!(": {}", failure.message));
        }
        Some(text)
    }

    /// Takes up what a record holds from before this start. Container scopes
    /// without a member begin their grace time now.
    pub(super) async fn resume(self: &Arc<Self>) {
        let mut state = self.state.lock().await;
        let State {
            record, memberless, ..
        } = &mut *state;
        for publication in &record.publications {
            if publication.scope.has_members() && publication.members.is_empty() {
                memberless.insert(publication.scope.clone(), Instant::now());
            }
        }
        self.start(&mut state);
    }

    /// Something ended: a release that waits for an exit is tried again.
    pub(super) async fn look_again(self: &Arc<Self>) {
        let mut state = self.state.lock().await;
        if state.record.publications.iter().any(|p| p.ending.is_some()) {
            self.start(&mut state);
        }
    }

    /// Starts the task, or wakes it.
    pub(super) fn start(self: &Arc<Self>, state: &mut State) {
        if state.record.is_released() && !state.running {
            return;
        }
        for hold in state.held_by.values_mut() {
            hold.look_at = Instant::now();
        }
        if state.running {
            self.wake.notify_one();
        } else {
            state.running = true;
            tokio::spawn(Arc::clone(self).work());
        }
    }
}
