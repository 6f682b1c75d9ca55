// SPDX-License-Identifier: Apache-2.0
//! What the control plane remembers. Records are written before an effect and
//! after it, so that a restart goes on from them alone.

mod attachment;
pub mod key;
mod request;
mod template;
mod volume;

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use attachment::{AttachmentPhase, AttachmentRecord, NodeId};
pub use request::{End, LastEnd, Request, RequestId, UnderWay, VerbName};
pub use template::{Identities, TemplateRecord, TemplateRevision};
pub use volume::{
    CreateRequest, Expansion, Leftover, Tombstone, Trouble, VolumePhase, VolumeRecord,
};

use crate::{
    api::storage_class::StorageClass,
    error::{Error, Result},
    model::{ActorRef, ActorUid, Audience, DnsLabel, GrantDevice, GrantMount, NodeName},
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

/// Strings of a driver that may be sensitive: Debug shows the keys alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Opaque(pub BTreeMap<String, String>);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
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
    /// When the grant may begin to be used at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The container named at resume.
    pub container: Option<DnsLabel>,
    /// The mounts of the template, for that container.
    pub mounts: Vec<GrantMount>,
    /// The block devices of the template, for that container.
    #[serde(default)]
    pub devices: Vec<GrantDevice>,
}

impl Placement {
    /// Whether a resume there and for them is the same as this one.
    pub fn is_for(&self, other: &Self) -> bool {
        (&self.node, &self.audience, &self.not_after, &self.container)
            == (
                &other.node,
                &other.audience,
                &other.not_after,
                &other.container,
            )
    }
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
    /// How it was ended last.
    #[serde(default)]
    pub last_end: Option<LastEnd>,
    /// The verb that brought it to its phase.
    #[serde(default)]
    pub by: Option<UnderWay>,
    /// The last requests that named themselves, oldest first.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// When it was created.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_record_of_a_newer_schema_is_refused() {
        let name = DnsLabel::new("t").unwrap();
        let record = TemplateRecord::new(name, 3, Timestamp::UNIX_EPOCH);
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
