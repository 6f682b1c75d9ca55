// SPDX-License-Identifier: Apache-2.0
//! `actor ls` and `show`, `volume ls` and `show`, `driver ls`.

use std::time::Duration;

use super::{
    Control,
    cell::{Inner, blocking, decode_state, load_standing, load_volume},
    index,
    lifecycle::State,
    record::{self, ActorRecord, AttachmentPhase, AttachmentRecord, VolumeRecord, key},
    store::Reader,
    view::{self, ActorView, StatsView, VolumeView},
};
use crate::{
    csi::DriverStatus,
    error::{Error, Result},
    model::{ActorRef, DnsLabel, NodeName, VolumeKey, VolumeUid},
};

/// How long whoever looks at a volume waits for its usage.
const STATS_WITHIN: Duration = Duration::from_secs(3);

/// Which actors are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActorFilter {
    /// Only those of this namespace.
    pub namespace: Option<DnsLabel>,
    /// Only those of this template.
    pub template: Option<DnsLabel>,
}

/// Which volumes are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VolumeFilter {
    /// All, retained ones included.
    #[default]
    All,
    /// Those that are nobody's.
    Retained,
    /// Those of an actor.
    OfActor(ActorRef),
    /// Those that are attached to a node, or about to be.
    OnNode(NodeName),
}

impl Control {
    /// An actor with its volumes.
    pub async fn actor(&self, actor: &ActorRef) -> Result<ActorView> {
        if let Some(cell) = self.cells.get(actor) {
            let inner = cell.lock().await?;
            return view::actor_of(&inner).ok_or_else(|| super::missing(actor));
        }
        let (store, name) = (self.store.clone(), actor.clone());
        let read = move || read_actor(&*store.snapshot()?, &name);
        let found = blocking(&self.tasks, read).await?;
        found.ok_or_else(|| super::missing(actor))
    }

    /// A page of actors.
    pub async fn actors(
        &self,
        filter: ActorFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<ActorView>, Option<String>)> {
        let store = self.store.clone();
        let read = move || {
            let reader = store.snapshot()?;
            let (names, next) = names_of(&*reader, &filter, after, limit)?;
            let views = names.iter().map(|name| read_actor(&*reader, name));
            Ok((views.collect::<Result<Vec<_>>>()?, next))
        };
        let (stored, next) = blocking(&self.tasks, read).await?;
        let mut views = Vec::new();
        for view in stored.into_iter().flatten() {
            // What is in memory has more to tell.
            match self.cells.get(&view.actor.actor) {
                None => views.push(view),
                // One that went meanwhile is left out.
                Some(cell) => views.extend(view::actor_of(&*cell.lock().await?)),
            }
        }
        Ok((views, next))
    }

    /// A volume, and how much of it is used where it is attached.
    pub async fn volume(&self, uid: &VolumeUid) -> Result<VolumeView> {
        let stored = self.stored_volume(uid).await?;
        let mut view = self.show(stored).await?;
        view.possible_double_writers = self.nodes.possible_double_writers(&view.volume.key());
        let attached = |a: &&(AttachmentRecord, _)| a.0.phase == AttachmentPhase::Attached;
        if let Some((attachment, _)) = view.attachments.iter().find(attached) {
            let node = attachment.node.clone();
            view.stats = Some(self.stats(&node, &view.volume.key()).await);
        }
        Ok(view)
    }

    async fn stats(&self, node: &NodeName, volume: &VolumeKey) -> StatsView {
        let asked = self.nodes.stats(node, volume);
        let without = |message: String| StatsView {
            stats: None,
            message,
        };
        match tokio::time::timeout(STATS_WITHIN, asked).await {
            Ok(Ok(Some(stats))) => StatsView {
                stats: Some(stats),
                message: String::new(),
            },
            Ok(Ok(None)) => without("the driver does not tell".into()),
            Ok(Err(error)) => without(error.full_message()),
            Err(_) => without(format!(
                "node {node} did not answer within {STATS_WITHIN:?}"
            )),
        }
    }

    pub(super) async fn stored_volume(&self, uid: &VolumeUid) -> Result<VolumeRecord> {
        let key = key::volume(uid);
        let store = self.store.clone();
        let (key, found) = blocking(&self.tasks, move || {
            store.get(&key).map(|found| (key, found))
        })
        .await?;
        let stored =
            found.ok_or_else(|| Error::not_found(format!("volume {uid} does not exist")))?;
        record::decode(&key, &stored.value)
    }

    /// A page of volumes.
    pub async fn volumes(
        &self,
        filter: VolumeFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<VolumeView>, Option<String>)> {
        let store = self.store.clone();
        let read = move || volumes_of(&*store.snapshot()?, &filter, after, limit);
        let (states, next) = blocking(&self.tasks, read).await?;
        let mut views = Vec::new();
        for state in states {
            views.extend(self.show_state(&state).await?);
        }
        Ok((views, next))
    }

    /// The volume as its actor's cell has it, if that is in memory; else as the
    /// store does.
    pub(super) async fn show(&self, stored: VolumeRecord) -> Result<VolumeView> {
        let (store, uid) = (self.store.clone(), stored.uid.clone());
        let read = move || decode_state(&load_volume(&*store.snapshot()?, &uid)?);
        let state = blocking(&self.tasks, read).await?;
        let shown = self.show_state(&state).await?;
        shown.ok_or_else(|| Error::not_found(format!("volume {} does not exist", stored.uid)))
    }

    /// The volume of a state with one alone.
    async fn show_state(&self, state: &State) -> Result<Option<VolumeView>> {
        let Some(stored) = state.volumes.values().next() else {
            return Ok(None);
        };
        let alone = self.alone().get(&stored.uid).cloned();
        if let Some(cell) = alone.or_else(|| self.cells.get(&stored.actor)) {
            let inner = cell.lock().await?;
            if let Some(volume) = inner.state.volumes.get(&stored.uid) {
                let view = view::volume_of(&inner.state, &inner.holders, volume);
                return Ok(Some(view));
            }
        }
        Ok(Some(view::volume_of(state, &Default::default(), stored)))
    }

    /// The drivers, by name.
    pub async fn driver_status(&self) -> Vec<DriverStatus> {
        self.drivers.statuses().await
    }
}

/// An actor as the store has it.
fn read_actor(reader: &dyn Reader, name: &ActorRef) -> Result<Option<ActorView>> {
    let state = decode_state(&load_standing(reader, name)?)?;
    Ok(view::actor_of(&Inner::of(state)))
}

/// A page of names, and where the next one begins.
fn names_of(
    reader: &dyn Reader,
    filter: &ActorFilter,
    after: Option<String>,
    limit: usize,
) -> Result<(Vec<ActorRef>, Option<String>)> {
    let namespace = filter.namespace.as_ref();
    let namespace = namespace.map_or_else(String::new, |n| format!("{n}/"));
    let (all, prefix) = match &filter.template {
        Some(template) => {
            let all = index::actors_of(template);
            (all.clone(), format!("{all}{namespace}"))
        }
        None => (
            key::ACTORS.to_owned(),
            format!("{}{namespace}", key::ACTORS),
        ),
    };
    check_after(&prefix, after.as_deref())?;
    let (keys, next): (Vec<_>, _) = if filter.template.is_some() {
        let page = reader.index(&prefix, after.as_deref(), limit)?;
        (
            page.items.into_iter().map(|(key, _)| key).collect(),
            page.next,
        )
    } else {
        let page = reader.list(&prefix, after.as_deref(), limit)?;
        (
            page.items.into_iter().map(|(key, _)| key).collect(),
            page.next,
        )
    };
    let names = keys.iter().map(|key| key[all.len()..].parse());
    Ok((names.collect::<Result<_>>()?, next))
}

/// A page of volumes, each in a state of its own with its attachments.
fn volumes_of(
    reader: &dyn Reader,
    filter: &VolumeFilter,
    after: Option<String>,
    limit: usize,
) -> Result<(Vec<State>, Option<String>)> {
    let prefix = match filter {
        VolumeFilter::All => key::VOLUMES.to_owned(),
        VolumeFilter::Retained => index::OWNERLESS.to_owned(),
        VolumeFilter::OnNode(node) => index::attachments_of(node),
        VolumeFilter::OfActor(actor) => {
            let key = key::actor(actor);
            let stored = reader.get(&key)?.ok_or_else(|| super::missing(actor))?;
            let record: ActorRecord = record::decode(&key, &stored.value)?;
            index::volumes_of(&record.uid)
        }
    };
    check_after(&prefix, after.as_deref())?;
    let (keys, next): (Vec<_>, _) = if *filter == VolumeFilter::All {
        let page = reader.list(&prefix, after.as_deref(), limit)?;
        (
            page.items.into_iter().map(|(key, _)| key).collect(),
            page.next,
        )
    } else {
        let page = reader.index(&prefix, after.as_deref(), limit)?;
        (
            page.items.into_iter().map(|(key, _)| key).collect(),
            page.next,
        )
    };
    let states = keys.iter().map(|key| {
        let uid = index::last_part(key).parse()?;
        decode_state(&load_volume(reader, &uid)?)
    });
    Ok((states.collect::<Result<_>>()?, next))
}

/// A page token goes on with the listing that gave it out alone.
fn check_after(prefix: &str, after: Option<&str>) -> Result<()> {
    if after.is_none_or(|after| after.starts_with(prefix)) {
        return Ok(());
    }
    Err(Error::invalid(
        "page_token was given out by another listing: begin without one",
    ))
}
