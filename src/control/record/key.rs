// SPDX-License-Identifier: Apache-2.0
//! Where each record stands in the store.

use crate::model::{ActorRef, DnsLabel, NodeName, VolumeUid};

pub const TEMPLATES: &str = "template/";
pub const CLASSES: &str = "storage-class/";
pub const ACTORS: &str = "actor/";
pub const VOLUMES: &str = "volume/";
pub const ATTACHMENTS: &str = "attachment/";
pub const TOMBSTONES: &str = "tombstone/";
pub const TEMPLATE_REVISIONS: &str = "template-revision/";
pub const NODES: &str = "node/";

pub fn template(name: &DnsLabel) -> String {
    format!("{TEMPLATES}{name}")
}
pub fn template_revision(name: &DnsLabel, revision: u64) -> String {
    format!("{}{revision:020}", template_revisions(name))
}
/// All revisions of a template, oldest first.
pub fn template_revisions(name: &DnsLabel) -> String {
    format!("{TEMPLATE_REVISIONS}{name}/")
}
pub fn class(name: &str) -> String {
    format!("{CLASSES}{name}")
}
pub fn actor(actor: &ActorRef) -> String {
    format!("{ACTORS}{actor}")
}
pub fn volume(uid: &VolumeUid) -> String {
    format!("{VOLUMES}{uid}")
}
pub fn attachment(volume: &VolumeUid, node: &NodeName) -> String {
    format!("{ATTACHMENTS}{volume}/{node}")
}
pub fn tombstone(uid: &VolumeUid) -> String {
    format!("{TOMBSTONES}{uid}")
}
