// SPDX-License-Identifier: Apache-2.0
//! A volume, what is asked of its driver, and what goes wrong with it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Opaque;
use crate::{
    csi,
    model::{
        AccessMode, ActorRef, ActorUid, DnsLabel, DriverName, Generation, NodeName, ReclaimPolicy,
        SecretRefs, SecretUse, Topology, VolumeKey, VolumeMode, VolumeUid,
    },
    secret::Secrets,
};

/// Where a volume is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumePhase {
    /// Recorded; nothing was sent to the driver.
    Intent,
    /// CreateVolume was sent, or is about to be.
    Creating,
    /// It exists.
    Ready,
    /// The driver refused to create it; the message is in `trouble`.
    Failed,
    /// DeleteVolume was sent, or is about to be.
    Deleting,
    /// Deleted: its record goes.
    Gone,
    /// Its actor is deleted, the volume and its data are kept.
    Retained,
}

impl VolumePhase {
    /// The phase, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "Pending",
            Self::Creating => "Creating",
            Self::Ready => "Ready",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
            Self::Gone => "Deleted",
            Self::Retained => "Retained",
        }
    }
}

/// A CreateVolume request as it was first recorded: every try sends these very
/// fields, whatever became of the class or the template meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The idempotency key.
    pub name: String,
    /// What is asked for.
    pub required_bytes: u64,
    /// The access mode.
    pub access_mode: AccessMode,
    /// File system or block device.
    pub volume_mode: VolumeMode,
    /// Empty: the driver's choice.
    pub fs_type: String,
    /// Mount flags of the class and the template.
    pub mount_flags: Vec<String>,
    /// `fsGroup` of the template as text; empty: none.
    #[serde(default)]
    pub mount_group: String,
    /// Parameters of the class.
    pub parameters: Opaque,
    /// From where it must be reachable.
    #[serde(default)]
    pub accessibility: csi::Accessibility,
}

impl CreateRequest {
    /// How the volume is used.
    pub fn capability(&self) -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_mode: self.access_mode,
            volume_mode: self.volume_mode,
            fs_type: self.fs_type.clone(),
            mount_flags: self.mount_flags.clone(),
            mount_group: self.mount_group.clone(),
        }
    }

    /// The request, to be sent with these secrets.
    pub fn to_csi(&self, secrets: Secrets) -> csi::CreateVolume {
        csi::CreateVolume {
            name: self.name.clone(),
            required_bytes: self.required_bytes,
            capability: self.capability(),
            parameters: self.parameters.0.clone(),
            accessibility: self.accessibility.clone(),
            secrets,
        }
    }
}

/// What goes wrong with a volume or an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What was attempted and what came back.
    pub message: String,
    /// The code of the error's kind.
    pub code: i32,
    /// Failed tries in a row.
    pub attempts: u32,
    /// The last of them.
    pub last_try: Timestamp,
    /// The next; none: not before a verb asks again.
    pub next_try: Option<Timestamp>,
    /// The RPC that may have been carried out or not; empty: none is in doubt.
    #[serde(default)]
    pub in_doubt: String,
}

/// A volume that is to grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expansion {
    /// What it is to have.
    pub wanted_bytes: u64,
    /// Whether the controller has done its part.
    pub controller_done: bool,
    /// Whether the node has a part to do; it stays until that is done.
    pub node_required: bool,
    /// Whether the driver expands only what is not published anywhere.
    pub offline: bool,
    /// What goes wrong, if anything.
    pub trouble: Option<Trouble>,
}

impl Expansion {
    /// One of which nothing is done yet.
    pub const fn to(wanted_bytes: u64) -> Self {
        Self {
            wanted_bytes,
            controller_done: false,
            node_required: false,
            offline: false,
            trouble: None,
        }
    }
}

/// A node that the driver lists for a volume whose release there was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The driver's name of the node.
    pub node_id: String,
    /// Whether ControllerUnpublishVolume was sent again: it must come to its end.
    pub sent: bool,
    /// What goes wrong, if anything.
    pub trouble: Option<Trouble>,
}

/// What stays of a volume whose record is gone: no late retry makes it again,
/// and what the driver still has of it is known for ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The volume.
    pub uid: VolumeUid,
    /// Its CSI driver.
    pub driver: DriverName,
    /// The name that it was created with.
    pub csi_name: String,
    /// The driver's id; empty: it was never known.
    pub volume_id: String,
    /// The secrets of its DeleteVolume.
    pub secret_refs: SecretRefs,
    /// When the record went.
    pub deleted_at: Timestamp,
    /// Nodes that are yet to forget it.
    #[serde(default)]
    pub untold: BTreeSet<NodeName>,
}

impl Tombstone {
    /// What names it on a node.
    pub fn key(&self) -> VolumeKey {
        VolumeKey {
            driver: self.driver.clone(),
            volume_id: self.volume_id.clone(),
        }
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its unique id.
    pub uid: VolumeUid,
    /// The actor that owns it, or owned it.
    pub actor: ActorRef,
    /// That actor's unique id.
    pub actor_uid: ActorUid,
    /// Its name in the template.
    pub name: DnsLabel,
    /// The revision of the template in which that name came in. A name that was
    /// removed and added again is another volume.
    #[serde(default = "first_revision")]
    pub introduced: u64,
    /// Whether its actor's revision of the template lacks it: it is kept, and in
    /// no grant, until the rollout is complete.
    #[serde(default)]
    pub unbound: bool,
    /// Whether it was retained and is deleted now: no actor owns it.
    #[serde(default)]
    pub released: bool,
    /// Its storage class.
    pub class: String,
    /// Its CSI driver.
    pub driver: DriverName,
    /// What is sent to create it.
    pub create: CreateRequest,
    /// What the template asks for; `create` holds what the driver is asked for.
    #[serde(default = "one_writer")]
    pub wanted_access_mode: AccessMode,
    /// What the class allows, before the node is known.
    #[serde(default)]
    pub allowed_topologies: Vec<Topology>,
    /// Where the secrets of its calls are found.
    #[serde(default)]
    pub secret_refs: SecretRefs,
    /// Whether `create` is what the driver is asked for, and changes no more.
    #[serde(default)]
    pub prepared: bool,
    /// What becomes of it with its actor.
    pub reclaim_policy: ReclaimPolicy,
    /// Whether it is created at the first resume (`WaitForFirstConsumer`).
    pub first_consumer: bool,
    /// Where it is in its life.
    pub phase: VolumePhase,
    /// Whether a CreateVolume was ever left without a sure answer: the driver
    /// may hold a volume whose id is not known here.
    pub unsure: bool,
    /// The driver's id; empty until CreateVolume answered.
    pub volume_id: String,
    /// What the driver gave; 0: unknown.
    pub capacity_bytes: u64,
    /// What the driver wants to see again.
    pub volume_context: Opaque,
    /// From where it can be reached; none: from everywhere.
    #[serde(default)]
    pub accessible_topology: Vec<Topology>,
    /// While it is to grow.
    #[serde(default)]
    pub expansion: Option<Expansion>,
    /// The driver's names of nodes from which it was detached.
    #[serde(default)]
    pub detached_from: BTreeSet<String>,
    /// A node that has it still.
    #[serde(default)]
    pub leftover: Option<Leftover>,
    /// The generation of the last resume; it only grows.
    pub generation: Generation,
    /// Generations up to this one are over.
    pub revoked: Generation,
    /// Nodes that hold a mark of it.
    pub nodes: BTreeSet<NodeName>,
    /// What goes wrong, if anything.
    pub trouble: Option<Trouble>,
    /// When it was recorded.
    pub created_at: Timestamp,
}

impl VolumeRecord {
    /// What names it on a node.
    pub fn key(&self) -> VolumeKey {
        VolumeKey {
            driver: self.driver.clone(),
            volume_id: self.volume_id.clone(),
        }
    }

    /// What it has: one whose size the driver never told has at least what was
    /// asked for.
    pub fn has_bytes(&self) -> u64 {
        self.capacity_bytes.max(self.create.required_bytes)
    }

    /// Whether no actor owns it: it is retained, or was and is being deleted.
    pub fn is_nobodys(&self) -> bool {
        self.phase == VolumePhase::Retained || self.released
    }

    /// Whether the driver never heard of it: nothing can be there.
    pub fn is_unmade(&self) -> bool {
        match self.phase {
            VolumePhase::Intent => true,
            VolumePhase::Failed => !self.unsure,
            _ => false,
        }
    }

    /// Whether the driver may have carried out a call on it whose answer is not known.
    pub fn is_uncertain(&self) -> bool {
        let doubt = |t: &Option<Trouble>| t.as_ref().is_some_and(Trouble::is_ambiguous);
        doubt(&self.trouble)
            || self.expansion.as_ref().is_some_and(|e| doubt(&e.trouble))
            || self.leftover.as_ref().is_some_and(|l| doubt(&l.trouble))
            || (self.unsure && self.volume_id.is_empty())
    }

    /// What stays of it when this record goes.
    pub fn tombstone(&self, now: Timestamp) -> Tombstone {
        let refs = self.secret_refs.iter();
        Tombstone {
            uid: self.uid.clone(),
            driver: self.driver.clone(),
            csi_name: self.create.name.clone(),
            volume_id: self.volume_id.clone(),
            secret_refs: refs
                .filter(|(use_, _)| **use_ == SecretUse::Provisioner)
                .map(|(use_, secret)| (*use_, secret.clone()))
                .collect(),
            deleted_at: now,
            untold: self.nodes.clone(),
        }
    }
}

impl Trouble {
    /// Whether something may have been carried out.
    pub fn is_ambiguous(&self) -> bool {
        !self.in_doubt.is_empty()
    }
}

/// Of a record that does not tell.
pub(super) const fn first_revision() -> u64 {
    1
}

/// What a template asks for that names no mode.
fn one_writer() -> AccessMode {
    AccessMode::SingleNodeSingleWriter
}
