// SPDX-License-Identifier: Apache-2.0
//! Which index entries a record stands for: pure, from the record alone. The
//! store writes them in the batch of the record, so that no writer can forget
//! them, and [`check`](super::check) finds what differs.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{
    record::{
        self, ActorPhase, ActorRecord, AttachmentRecord, Tombstone, VolumePhase, VolumeRecord, key,
    },
    rollout,
};
use crate::{
    error::Result,
    model::{ActorRef, ActorUid, DnsLabel, DriverName, NodeName},
};

/// Index keys, and what is told with them.
pub type Entries = BTreeMap<String, String>;

/// Actors with something to do, or that hold a grant.
pub const ACTIVE: &str = "active/";
/// Volumes that are nobody's.
pub const OWNERLESS: &str = "ownerless/";
/// Volumes that wait for the end of a rollout.
pub const KEPT: &str = "kept/";
/// Actors by template, with their revision and phase.
pub const TEMPLATE_ACTORS: &str = "template-actor/";
/// Volumes by actor, with their phase.
pub const ACTOR_VOLUMES: &str = "actor-volume/";

/// Attachments by node.
pub const NODE_ATTACHMENTS: &str = "node-attachment/";

/// Deleted volumes that a node is yet to forget.
pub const UNTOLD: &str = "untold/";

/// The volumes of an actor.
pub fn volumes_of(actor: &ActorUid) -> String {
    format!("{ACTOR_VOLUMES}{actor}/")
}
/// The attachments of a node.
pub fn attachments_of(node: &NodeName) -> String {
    format!("{NODE_ATTACHMENTS}{node}/")
}
/// The deleted volumes that a node is yet to forget.
pub fn untold_of(node: &NodeName) -> String {
    format!("{UNTOLD}{node}/")
}
/// The actors of a template.
pub fn actors_of(template: &DnsLabel) -> String {
    format!("{TEMPLATE_ACTORS}{template}/")
}
/// Volumes by what their driver calls them.
pub fn driver_volume(driver: &DriverName, volume_id: &str) -> String {
    let digest = Sha256::digest(volume_id.as_bytes());
    format!("driver-volume/{driver}/{}/", hex::encode(&digest[..8]))
}
/// What an actor is active for.
fn active(actor: &ActorRef, what: &str) -> String {
    format!("{ACTIVE}{actor}/{what}")
}

/// The last part of an index key.
pub fn last_part(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// The actor that an `active/…/x` or `kept/…/x` key is about.
pub fn actor_in(key: &str) -> Option<ActorRef> {
    let mut parts = key.rsplit('/').skip(1);
    let (name, namespace) = (parts.next()?, parts.next()?);
    format!("{namespace}/{name}").parse().ok()
}

/// What an entry of [`TEMPLATE_ACTORS`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateActor {
    /// The template.
    pub template: DnsLabel,
    /// The actor.
    pub actor: ActorRef,
    /// Its revision.
    pub revision: u64,
    /// Its phase, for people.
    pub phase: String,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl TemplateActor {
    /// From an entry; none: it is none.
    pub fn read(key: &str, value: &str) -> Option<Self> {
        let (template, actor) = key.strip_prefix(TEMPLATE_ACTORS)?.split_once('/')?;
        let mut words = value.split(' ');
        Some(Self {
            template: template.parse().ok()?,
            actor: actor.parse().ok()?,
            revision: words.next()?.parse().ok()?,
            phase: words.next()?.to_owned(),
            deleting: words.next().is_some(),
        })
    }
}

/// The entries of the record with this key. None for records that have no index.
pub fn of(key: &str, value: &[u8]) -> Result<Entries> {
    if key.starts_with(key::ACTORS) {
        Ok(of_actor(&record::decode(key, value)?))
    } else if key.starts_with(key::VOLUMES) {
        Ok(of_volume(&record::decode(key, value)?))
    } else if key.starts_with(key::ATTACHMENTS) {
        Ok(of_attachment(&record::decode(key, value)?))
    } else if key.starts_with(key::TOMBSTONES) {
        Ok(of_tombstone(&record::decode(key, value)?))
    } else {
        Ok(Entries::new())
    }
}

fn of_actor(record: &ActorRecord) -> Entries {
    let deleting = if record.deletion.is_some() {
        " deleting"
    } else {
        ""
    };
    let told = format!(
        "{} {}{deleting}",
        record.template_revision,
        record.phase.as_str()
    );
    let mut entries = Entries::new();
    entries.insert(
        format!("{}{}", actors_of(&record.template), record.actor),
        told,
    );
    if record.phase != ActorPhase::Suspended || record.deletion.is_some() {
        entries.insert(active(&record.actor, "actor"), String::new());
    }
    entries
}

fn of_volume(volume: &VolumeRecord) -> Entries {
    let mut entries = Entries::new();
    let phase = volume.phase.as_str().to_owned();
    if volume.is_nobodys() {
        entries.insert(format!("{OWNERLESS}{}", volume.uid), phase);
    } else {
        let of_actor = volumes_of(&volume.actor_uid);
        entries.insert(format!("{of_actor}{}", volume.uid), phase);
        if may_lead_on(volume) {
            let key = active(&volume.actor, volume.uid.as_str());
            entries.insert(key, String::new());
        }
        if rollout::is_kept(volume) {
            let key = format!("{KEPT}{}/{}", volume.actor, volume.uid);
            entries.insert(key, String::new());
        }
    }
    if !volume.volume_id.is_empty() {
        let of_driver = driver_volume(&volume.driver, &volume.volume_id);
        entries.insert(format!("{of_driver}{}", volume.uid), String::new());
    }
    entries
}

fn of_attachment(attachment: &AttachmentRecord) -> Entries {
    let of_node = attachments_of(&attachment.node);
    [(format!("{of_node}{}", attachment.volume), String::new())].into()
}

fn of_tombstone(tombstone: &Tombstone) -> Entries {
    let entry = |node| {
        (
            format!("{}{}", untold_of(node), tombstone.uid),
            String::new(),
        )
    };
    tombstone.untold.iter().map(entry).collect()
}

/// Whether there may be a step to take for it without its actor's doing. Rather
/// once too often: an actor that turns out to be at rest is put back.
fn may_lead_on(volume: &VolumeRecord) -> bool {
    match volume.phase {
        VolumePhase::Creating | VolumePhase::Deleting | VolumePhase::Gone => true,
        // The first resume makes its actor active.
        VolumePhase::Intent => !volume.first_consumer,
        VolumePhase::Ready | VolumePhase::Failed | VolumePhase::Retained => {
            volume.leftover.is_some()
                || volume
                    .expansion
                    .as_ref()
                    .is_some_and(|e| !e.controller_done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let actor: ActorRef = "agents/a1".parse().unwrap();
        assert_eq!(actor_in(&active(&actor, "actor")), Some(actor.clone()));
        let key = format!("{}{actor}", actors_of(&"t".parse().unwrap()));
        let read = TemplateActor::read(&key, "7 Suspended deleting").unwrap();
        assert_eq!((read.revision, read.deleting), (7, true));
        assert_eq!((read.actor, read.phase.as_str()), (actor, "Suspended"));
        assert!(!TemplateActor::read(&key, "7 Resumed").unwrap().deleting);
        assert_eq!(last_part("a/b/c"), "c");
    }

    #[test]
    fn a_record_that_cannot_be_read_has_no_entries_but_an_error() {
        assert!(of("volume/x", b"{").is_err());
        assert_eq!(of("template/x", b"{").unwrap(), Entries::new());
    }
}
