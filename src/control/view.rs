// SPDX-License-Identifier: Apache-2.0
//! What verbs answer.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    cell::Inner,
    engine::describe,
    lifecycle::{State, verb},
    record::{
        ActorPhase, ActorRecord, AttachmentPhase, AttachmentRecord, TemplateRevision, VolumeRecord,
    },
};
use crate::{
    csi::VolumeStats,
    model::{DnsLabel, NodeName, VolumeUid},
};

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing of that name.
    Created,
    /// It stood there with another content.
    Changed,
    /// The very same stood there already.
    Unchanged,
}

/// A template at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateView(pub TemplateRevision);

/// How far the newest revision of a template has come.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateStatus {
    /// The template.
    pub name: DnsLabel,
    /// Its newest revision.
    pub revision: u64,
    /// Whether nothing is missing.
    pub complete: bool,
    /// The revisions that are kept: when they were applied, actors on them.
    pub revisions: Vec<(u64, Timestamp, u64)>,
    /// Volumes that their actor's revision lacks; not all, if there are many.
    pub unbound: Vec<VolumeView>,
    /// How many there are.
    pub unbound_count: u64,
    /// What is missing.
    pub message: String,
}

/// A volume and where it is attached.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeView {
    /// The volume.
    pub volume: VolumeRecord,
    /// Where it is attached, with who holds it there.
    pub attachments: Vec<(AttachmentRecord, Option<String>)>,
    /// What its growing waits for; none: it does not grow.
    pub expansion_message: Option<String>,
    /// How much of it is used; none: it was not asked for, or is attached nowhere.
    pub stats: Option<StatsView>,
}

/// How much of a volume is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsView {
    /// What the driver told; none: see the message.
    pub stats: Option<VolumeStats>,
    /// Why it told nothing.
    pub message: String,
}

/// An actor and its volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct ActorView {
    /// The actor.
    pub actor: ActorRecord,
    /// Its volumes, by name.
    pub volumes: Vec<VolumeView>,
    /// What it waits for, for people; empty: nothing.
    pub message: String,
}

type Holders = BTreeMap<(VolumeUid, NodeName), String>;

/// A volume as the records of its actor show it.
pub(super) fn volume_of(state: &State, holders: &Holders, volume: &VolumeRecord) -> VolumeView {
    let attachments = state.attachments_of(&volume.uid).map(|attachment| {
        let at = (attachment.volume.clone(), attachment.node.clone());
        (attachment.clone(), holders.get(&at).cloned())
    });
    VolumeView {
        volume: volume.clone(),
        attachments: attachments.collect(),
        expansion_message: expansion_message(state, volume),
        stats: None,
    }
}

/// What a volume that is to grow waits for.
pub(super) fn expansion_message(state: &State, volume: &VolumeRecord) -> Option<String> {
    let expansion = volume.expansion.as_ref()?;
    if let Some(trouble) = &expansion.trouble {
        return Some(describe(trouble));
    }
    let mut attachments = state.attachments_of(&volume.uid);
    let message = if !expansion.controller_done {
        match attachments.next() {
            Some(a) if expansion.offline => format!(
                "waits for suspend: the driver expands only what no node has, and node {} has it",
                a.node
            ),
            _ => "the driver is asked".to_owned(),
        }
    } else {
        match attachments.find(|a| a.phase == AttachmentPhase::Attached) {
            Some(a) => format!(
                "waits until it is in use on node {}, which has the rest to do",
                a.node
            ),
            None => "waits for the next resume: the node has the rest to do".to_owned(),
        }
    };
    Some(message)
}

/// The actor of a cell; none: it is gone.
pub(super) fn actor_of(inner: &Inner) -> Option<ActorView> {
    let state = &inner.state;
    let volumes = state.volumes_by_name();
    Some(ActorView {
        actor: state.actor.clone()?,
        volumes: volumes
            .into_iter()
            .map(|v| volume_of(state, &inner.holders, v))
            .collect(),
        message: message_of(inner),
    })
}

/// What an actor waits for, and what goes wrong, on one line.
pub(super) fn message_of(inner: &Inner) -> String {
    let state = &inner.state;
    let mut parts = Vec::new();
    let phase = state.actor.as_ref().map(|a| a.phase);
    if phase == Some(ActorPhase::Suspending) {
        parts.push(verb::what_is_awaited(state));
        for ((uid, node), holder) in &inner.holders {
            if let Some(volume) = state.volumes.get(uid) {
                parts.push(format!(
                    "volume {} is held on node {node} by {holder}",
                    volume.name
                ));
            }
        }
    }
    for volume in state.volumes_by_name() {
        let mut troubles: Vec<_> = volume.trouble.iter().collect();
        // Of one that is being suspended, what is awaited was told above.
        if phase != Some(ActorPhase::Suspending) {
            troubles.extend(
                state
                    .attachments_of(&volume.uid)
                    .filter_map(|a| a.trouble.as_ref()),
            );
        }
        for trouble in troubles {
            parts.push(format!("volume {}: {}", volume.name, describe(trouble)));
        }
    }
    parts.retain(|p| !p.is_empty());
    parts.join("; ")
}
