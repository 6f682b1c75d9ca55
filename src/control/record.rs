// SPDX-License-Identifier: Apache-2.0
//! What the control plane remembers. Records are written before an effect and
//! after it, so that a restart goes on from them alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    api::{storage_class::StorageClass, template::Template},
    csi,
    error::{Error, Result},
    model::{
        AccessMode, ActorRef, ActorUid, Audience, DnsLabel, DriverName, Generation, GrantMount,
        NodeName, ReclaimPolicy, VolumeKey, VolumeMode, VolumeUid,
    },
    secret::Secrets,
};

/// The schema of every record of this version. A higher one is refused.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u32,
    record: T,
}

/// A record as bytes.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(&Envelope {
        schema: SCHEMA,
        record,
    })
    .map_err(|e| Error::internal("cannot write a record as JSON").with_source(e))
}

/// A record from bytes. Errors name the key, never the content.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct SchemaOnly {
        schema: u32,
    }
    let broken = || Error::internal(format!("record {key} cannot be read: restore the store"));
    let found: SchemaOnly = serde_json::from_slice(bytes).map_err(|_| broken())?;
    if found.schema > SCHEMA {
        return Err(Error::precondition(format!(
            "record {key} has schema {}, this version reads up to {SCHEMA}: use the newer version that wrote it",
            found.schema
        )));
    }
    let envelope: Envelope<T> = serde_json::from_slice(bytes).map_err(|_| broken())?;
    Ok(envelope.record)
}

/// Where each record stands in the store.
pub mod key {
    use super::{ActorRef, DnsLabel, NodeName, VolumeUid};

    pub const TEMPLATES: &str = "template/";
    pub const CLASSES: &str = "storage-class/";
    pub const ACTORS: &str = "actor/";
    pub const VOLUMES: &str = "volume/";
    pub const ATTACHMENTS: &str = "attachment/";

    pub fn template(name: &DnsLabel) -> String {
        format!("{TEMPLATES}{name}")
    }
    pub fn template_revision(name: &DnsLabel, revision: u64) -> String {
        format!("template-revision/{name}/{revision:020}")
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
}

/// Strings of a driver that may be sensitive: Debug shows the keys alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Opaque(pub BTreeMap<String, String>);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A template's name and its newest revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its name.
    pub name: DnsLabel,
    /// The newest revision; the first is 1.
    pub revision: u64,
    /// When that was applied.
    pub applied_at: Timestamp,
}

/// One revision of a template. It never changes, and it stays for the actors
/// that were created from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateRevision {
    /// Its number.
    pub revision: u64,
    /// What was applied.
    pub template: Template,
    /// When.
    pub applied_at: Timestamp,
}

/// A storage class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StorageClassRecord {
    /// What was applied.
    pub class: StorageClass,
    /// When.
    pub applied_at: Timestamp,
}

/// Where an actor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActorPhase {
    /// It runs nowhere: it was just created, or suspended.
    Suspended,
    /// A resume is recorded; its volumes are being created or attached.
    Resuming,
    /// The grant was given out.
    Resumed,
    /// The grant is over; release is awaited.
    Suspending,
    /// Its volumes are being deleted.
    Deleting,
}

impl ActorPhase {
    /// The phase, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Resuming => "Resuming",
            Self::Resumed => "Resumed",
            Self::Suspending => "Suspending",
            Self::Deleting => "Deleting",
        }
    }
}

/// Where and for whom an actor was resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node: NodeName,
    /// Who may present the grant.
    pub audience: Audience,
    /// The container named at resume.
    pub container: Option<DnsLabel>,
    /// The mounts of the template, for that container.
    pub mounts: Vec<GrantMount>,
}

/// An actor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorRecord {
    /// Its name.
    pub actor: ActorRef,
    /// Its unique id.
    pub uid: ActorUid,
    /// The template that it was created from.
    pub template: DnsLabel,
    /// The revision of that template.
    pub template_revision: u64,
    /// Where it is in its life.
    pub phase: ActorPhase,
    /// While it is resumed, and until it is suspended.
    pub placement: Option<Placement>,
    /// When its deletion was asked for.
    pub deletion: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

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
    /// Deleted; marks on nodes are being forgotten.
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
    /// Parameters of the class.
    pub parameters: Opaque,
}

impl CreateRequest {
    /// How the volume is used.
    pub fn capability(&self) -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_mode: self.access_mode,
            volume_mode: self.volume_mode,
            fs_type: self.fs_type.clone(),
            mount_flags: self.mount_flags.clone(),
            mount_group: String::new(),
        }
    }

    /// The request, to be sent.
    pub fn to_csi(&self) -> csi::CreateVolume {
        csi::CreateVolume {
            name: self.name.clone(),
            required_bytes: self.required_bytes,
            capability: self.capability(),
            parameters: self.parameters.0.clone(),
            accessibility: csi::Accessibility::default(),
            secrets: Secrets::default(),
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
    /// Its storage class.
    pub class: String,
    /// Its CSI driver.
    pub driver: DriverName,
    /// What is sent to create it.
    pub create: CreateRequest,
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
}

/// Where an attachment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentPhase {
    /// ControllerPublishVolume is to be done, where the driver has it.
    Attaching,
    /// The node may stage and publish.
    Attached,
    /// The node is to be told that the generation is over.
    Revoking,
    /// The node was told; what it holds is to be released.
    Releasing,
    /// Release is proven; ControllerUnpublishVolume is to be done.
    Detaching,
}

impl AttachmentPhase {
    /// The phase, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attaching => "Attaching",
            Self::Attached => "Attached",
            Self::Revoking => "Revoking",
            Self::Releasing => "Releasing",
            Self::Detaching => "Detaching",
        }
    }
}

/// The driver's own name of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeId {
    /// Not asked yet: nothing can have been attached.
    Unknown,
    /// The driver has no ControllerPublishVolume: nothing is attached.
    NotNeeded,
    /// `node_id` of NodeGetInfo: something may be attached.
    Known(String),
}

/// One volume on one node. It exists for every driver, also for those without
/// ControllerPublishVolume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// The volume.
    pub volume: VolumeUid,
    /// The node.
    pub node: NodeName,
    /// The driver's name of the node.
    pub node_id: NodeId,
    /// What ControllerPublishVolume gave.
    pub publish_context: Opaque,
    /// Where it is in its life.
    pub phase: AttachmentPhase,
    /// The generation that it was made for.
    pub generation: Generation,
    /// What goes wrong, if anything.
    pub trouble: Option<Trouble>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_record_of_a_newer_schema_is_refused() {
        let name = DnsLabel::new("t").unwrap();
        let record = TemplateRecord {
            name,
            revision: 3,
            applied_at: Timestamp::UNIX_EPOCH,
        };
        let bytes = encode(&record).unwrap();
        assert_eq!(decode::<TemplateRecord>("k", &bytes).unwrap(), record);
        let newer = String::from_utf8(bytes)
            .unwrap()
            .replace("\"schema\":1", "\"schema\":2");
        let error = decode::<TemplateRecord>("k", newer.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
    }

    #[test]
    fn contexts_are_not_shown() {
        let context = Opaque([("token".to_owned(), "hush".to_owned())].into());
        let shown = format!("{context:?}");
        assert!(shown.contains("token") && !shown.contains("hush"));
    }
}
