// SPDX-License-Identifier: Apache-2.0
//! The record of one volume on this node, and its bytes on disk. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::anchor::Anchor;
use crate::{
    error::{Error, Result},
    host::{device::Device, mountinfo::Identity},
    model::{
        AccessMode, ActorRef, ActorUid, Generation, GrantVolume, Scope, SecretRefs, SubPath,
        VolumeKey, VolumeMode, VolumeUid,
    },
};

/// The version of the bytes.
const VERSION: u32 = 1;

/// A record is a few kilobytes; what is larger is not one of ours.
pub const MAX_BYTES: u64 = 1 << 20;

/// How far an effect has come. It is recorded before the call that starts it
/// and after the answer that ends it, so that a kill between them is `Doing` or
/// `Undoing`: maybe done, and repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Not begun, or undone.
    #[default]
    Absent,
    /// Asked for; maybe done.
    Doing,
    /// Done.
    Done,
    /// Its negation was asked for; maybe undone.
    Undoing,
}

/// What this node holds of one volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRecord {
    /// Driver and volume id.
    pub key: VolumeKey,
    /// The volume's unique id, once a grant has told it.
    pub uid: Option<VolumeUid>,
    /// The highest generation of an accepted grant.
    pub highest: Generation,
    /// Every generation up to this one is over.
    pub revoked: Generation,
    /// NodeStageVolume.
    pub staging: Staging,
    /// NodePublishVolume, one a scope, oldest first.
    pub publications: Vec<Publication>,
    /// The size that NodeExpandVolume is to bring about once it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<u64>,
    /// The largest size that it has brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<u64>,
}

/// The staging of the volume on this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Staging {
    /// How far it has come.
    pub phase: Phase,
    /// What was sent, for a repetition with the very same fields.
    pub request: Option<Usage>,
    /// What the last publication showed: no other mount namespace may hold it
    /// when the volume is said to be released.
    pub identity: Option<Identity>,
    /// The same, where that was a block device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Whether the driver mounted something at the staging path.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mounted: bool,
    /// It is to be undone and made anew before the next publication.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stale: bool,
}

/// How the volume is used: the fields of the CSI node calls, but for the paths.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Usage {
    /// The generation of the grant that gave these fields.
    pub generation: Generation,
    /// The access mode that is wanted.
    pub access_mode: AccessMode,
    /// File system or block device.
    pub volume_mode: VolumeMode,
    /// Empty: the driver's choice.
    pub fs_type: String,
    /// Mount flags.
    pub mount_flags: Vec<String>,
    /// The numeric group that is to own the root directory; empty: as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_group: String,
    /// Where the secrets of the calls are found; never the secrets.
    #[serde(default, skip_serializing_if = "SecretRefs::is_empty")]
    pub secret_refs: SecretRefs,
    /// Of CreateVolume.
    pub volume_context: BTreeMap<String, String>,
    /// Of ControllerPublishVolume.
    pub publish_context: BTreeMap<String, String>,
}

/// A directory of the volume that is shown at a place of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubMount {
    /// Which one.
    pub path: SubPath,
    /// What is shown, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<SubShown>,
}

/// By what a directory of the volume is known again: whoever has the volume may
/// rename it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubShown {
    /// The device of its file system.
    pub device: String,
    /// Its inode.
    pub inode: u64,
}

/// One scope's publication of the volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publication {
    /// What it lives as long as.
    pub scope: Scope,
    /// The volume's name in the template, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub volume: String,
    /// The pod, `namespace/name`, for people.
    pub pod: String,
    /// The actor.
    pub actor: ActorRef,
    /// The actor's unique id.
    pub actor_uid: ActorUid,
    /// How far it has come.
    pub phase: Phase,
    /// Whether all its mounts refuse writes.
    pub read_only: bool,
    /// What is sent, for a repetition with the very same fields.
    pub request: Usage,
    /// What the mount shows, once it is made: by this its holders are found.
    pub identity: Option<Identity>,
    /// The type of its file system, once it is made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_system: String,
    /// The block device, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The directories of it that are shown at places of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sub_paths: Vec<SubMount>,
    /// Why what was published is of no use any more and is to be made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<String>,
    /// The containers that were given the mount and are not known to be gone.
    pub members: BTreeSet<String>,
    /// When it was asked for first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Whether the runtime is known to have had its sandbox: it listed it, or made a
    /// container in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub listed: bool,
    /// Why the scope is over; none: it is not.
    pub ending: Option<String>,
    /// Of a container that no pod holds: by what it is seen to live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Publication {
    /// Whether it is done, wanted and of use.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Done && self.ending.is_none() && self.corrupt.is_none()
    }

    /// Who uses it, for people.
    pub fn user(&self) -> String {
        match self.scope.sandbox() {
            Some(_) => format!("pod {} ({})", self.pod, self.scope),
            None => self.scope.to_string(),
        }
    }

    /// Nothing is published any more, and it may be published anew.
    pub fn undone(&mut self) {
        self.phase = Phase::Absent;
        self.identity = None;
        self.file_system.clear();
        self.device = None;
        for sub in &mut self.sub_paths {
            sub.shown = None;
        }
        self.corrupt = None;
    }
}

impl VolumeRecord {
    /// A record that holds nothing yet.
    pub fn new(key: VolumeKey) -> Self {
        Self {
            key,
            uid: None,
            highest: Generation::default(),
            revoked: Generation::default(),
            staging: Staging::default(),
            publications: Vec::new(),
            expand: None,
            expanded: None,
        }
    }

    /// The publication of this scope.
    pub fn publication(&self, scope: &Scope) -> Option<&Publication> {
        self.publications.iter().find(|p| p.scope == *scope)
    }

    /// The publication of this scope, to change it.
    pub fn publication_mut(&mut self, scope: &Scope) -> Option<&mut Publication> {
        self.publications.iter_mut().find(|p| p.scope == *scope)
    }

    /// Whether nothing of the volume is on this node, and nothing is asked for.
    pub fn is_released(&self) -> bool {
        self.publications.is_empty() && self.staging.phase == Phase::Absent
    }

    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a record is made of plain values");
        let checksum = hex::encode(Sha256::digest(&body));
        let body = RawValue::from_string(body).expect("just written as JSON");
        serde_json::to_vec(&Envelope {
            version: VERSION,
            checksum,
            body,
        })
        .expect("an envelope is made of plain values")
    }

    /// Reads the bytes of a record. Whatever is torn, changed or of a newer
    /// version is an error, never an empty record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let unreadable = |e: serde_json::Error| {
            Error::internal("not a record, or torn by a crash").with_source(e)
        };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(unreadable)?;
        if envelope.version != VERSION {
            return Err(Error::internal(format!(
                "version {} of the record is not known to this program: use the one that wrote it, or a newer one",
                envelope.version
            )));
        }
        let found = hex::encode(Sha256::digest(envelope.body.get()));
        if found != envelope.checksum {
            return Err(Error::internal("the checksum of the record does not match"));
        }
        serde_json::from_str(envelope.body.get()).map_err(unreadable)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    checksum: String,
    body: Box<RawValue>,
}

impl Usage {
    /// The fields that a grant gives.
    pub fn of(volume: &GrantVolume) -> Self {
        Self {
            generation: volume.generation,
            access_mode: volume.access_mode,
            volume_mode: volume.volume_mode,
            fs_type: volume.fs_type.clone(),
            mount_flags: volume.mount_flags.clone(),
            mount_group: volume.mount_group.clone(),
            secret_refs: volume.secret_refs.clone(),
            volume_context: volume.volume_context.clone(),
            publish_context: volume.publish_context.clone(),
        }
    }
}

// Contexts may be sensitive: Debug shows their keys alone.
impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage")
            .field("generation", &self.generation)
            .field("access_mode", &self.access_mode)
            .field("volume_context", &self.volume_context.keys())
            .field("publish_context", &self.publish_context.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::RuntimeId;
    use proptest::prelude::*;

    pub(crate) fn usage(generation: u64) -> Usage {
        Usage {
            generation: Generation(generation),
            access_mode: AccessMode::SingleNodeSingleWriter,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            mount_flags: Vec::new(),
            mount_group: String::new(),
            secret_refs: SecretRefs::new(),
            volume_context: BTreeMap::new(),
            publish_context: BTreeMap::new(),
        }
    }

    pub(crate) fn publication(sandbox: &str, generation: u64, phase: Phase) -> Publication {
        Publication {
            scope: Scope::Sandbox {
                runtime: RuntimeId::new("cri:/x").unwrap(),
                sandbox: sandbox.into(),
            },
            volume: "data".into(),
            pod: "agents/pod".into(),
            actor: "agents/a".parse().unwrap(),
            actor_uid: ActorUid::new("a1").unwrap(),
            phase,
            read_only: false,
            request: usage(generation),
            identity: None,
            file_system: String::new(),
            device: None,
            sub_paths: Vec::new(),
            corrupt: None,
            members: BTreeSet::new(),
            asked_at: None,
            listed: false,
            ending: None,
            anchor: None,
        }
    }

    pub(crate) fn record(publications: Vec<Publication>) -> VolumeRecord {
        VolumeRecord {
            publications,
            ..VolumeRecord::new(VolumeKey {
                driver: "d.test".parse().unwrap(),
                volume_id: "v1".into(),
            })
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let mut record = record(vec![publication("s1", 3, Phase::Done)]);
        record.highest = Generation(3);
        record.staging.phase = Phase::Doing;
        record.staging.request = Some(usage(3));
        assert_eq!(VolumeRecord::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn a_record_of_the_first_release_is_read() {
        let usage = r#"{"generation":3,"accessMode":"SINGLE_NODE_WRITER","volumeMode":"Filesystem","fsType":"","mountFlags":[],"volumeContext":{},"publishContext":{}}"#;
        let body = format!(
            r#"{{"key":{{"driver":"d.test","volume_id":"v1"}},"uid":"u1","highest":3,"revoked":0,"staging":{{"phase":"done","request":{usage},"identity":null}},"publications":[{{"scope":{{"kind":"sandbox","runtime":"cri:/x","sandbox":"s1"}},"pod":"agents/pod","actor":{{"namespace":"agents","name":"a"}},"actorUid":"a1","phase":"done","readOnly":false,"request":{usage},"identity":{{"device":"8:1","root":"/"}},"members":["c1"],"ending":null}}]}}"#
        );
        let checksum = hex::encode(Sha256::digest(&body));
        let bytes = format!(r#"{{"version":1,"checksum":"{checksum}","body":{body}}}"#);
        let read = VolumeRecord::decode(bytes.as_bytes()).unwrap();
        assert!(read.publications[0].is_live());
        assert_eq!(read.publications[0].request.mount_group, "");
        assert_eq!(read.expand, None);
        // What it does not use leaves no mark, so that an older program reads it.
        assert_eq!(read.encode(), bytes.as_bytes());
    }

    #[test]
    fn a_record_holds_references_to_secrets_and_reads_back() {
        use crate::model::SecretUse;
        let mut record = record(vec![publication("s1", 1, Phase::Absent)]);
        let secret = "storage/creds".parse().unwrap();
        let request = &mut record.publications[0].request;
        request.secret_refs.insert(SecretUse::NodeStage, secret);
        record.publications[0].sub_paths = vec![SubMount {
            path: "a/b".parse().unwrap(),
            shown: Some(SubShown {
                device: "8:1".into(),
                inode: 7,
            }),
        }];
        record.expand = Some(5);
        record.staging.stale = true;
        assert_eq!(VolumeRecord::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn a_torn_or_changed_record_is_an_error() {
        let bytes = record(vec![publication("s1", 1, Phase::Done)]).encode();
        for end in 0..bytes.len() {
            assert!(VolumeRecord::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let text = String::from_utf8(bytes).unwrap();
        let changed = text.replace("\"highest\":0", "\"highest\":9");
        assert_ne!(changed, text);
        let error = VolumeRecord::decode(changed.as_bytes()).unwrap_err();
        assert!(error.full_message().contains("checksum"), "{error:?}");
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let text = String::from_utf8(record(vec![]).encode()).unwrap();
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        let error = VolumeRecord::decode(newer.as_bytes()).unwrap_err();
        assert!(error.full_message().contains("version 2"), "{error:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert!(VolumeRecord::decode(&bytes).is_err());
        }
    }
}
