// SPDX-License-Identifier: Apache-2.0
//! The grant: which volumes a scope may use, at which generation, and where
//! they go. The content of the annotation `actor-volumes.dev/attachments`.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AccessMode, ActorRef, ActorUid, DnsLabel, DriverName, Generation, NodeName, SecretRefs,
    SubPath, VolumeKey, VolumeMode, VolumeUid,
};

/// Who a grant is for, and what it allows on one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The version of this format; 1.
    pub version: u32,
    /// The actor: namespace, name and uid.
    pub actor: GrantActor,
    /// The only node on which it counts.
    pub node: NodeName,
    /// Who may present it.
    pub audience: Audience,
    /// No scope begins with it after that; none: no limit of time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Whether it holds the contexts, so that it counts by itself on a node that does
    /// not reach the control plane.
    #[serde(skip_serializing_if = "is_false")]
    pub self_contained: bool,
    /// The volumes.
    pub volumes: Vec<GrantVolume>,
    /// Where they are mounted.
    pub mounts: Vec<GrantMount>,
    /// Where raw block volumes are shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<GrantDevice>,
}

/// The actor that a grant names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantActor {
    /// The namespace it lives in.
    pub namespace: DnsLabel,
    /// Its name, unique in the namespace.
    pub name: DnsLabel,
    /// Its unique id.
    pub uid: ActorUid,
}

/// Who may present a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Audience {
    /// A pod of this namespace; of this exact name if one is given.
    Pod {
        /// The pod's namespace.
        namespace: DnsLabel,
        /// The pod's name, where it is known at resume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
    },
    /// A container that no pod holds.
    Host {
        /// The node.
        node: NodeName,
        /// The container's id, where it is known at resume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
}

/// One volume of a grant.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantVolume {
    /// Its name in the template.
    pub name: DnsLabel,
    /// Its unique id.
    pub uid: VolumeUid,
    /// The generation that this grant is for.
    pub generation: Generation,
    /// The CSI driver.
    pub driver: DriverName,
    /// The driver's own id.
    pub volume_id: String,
    /// File system or block device.
    #[serde(default)]
    pub volume_mode: VolumeMode,
    /// The file system type asked for; empty: the driver's choice.
    #[serde(default)]
    pub fs_type: String,
    /// The CSI access mode.
    pub access_mode: AccessMode,
    /// Mount flags of the class and the template.
    #[serde(default)]
    pub mount_flags: Vec<String>,
    /// The numeric group that should own the files (`fsGroup` of the template);
    /// empty: as the driver leaves them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_group: String,
    /// References to the secrets of the node calls, never the secrets.
    #[serde(default, skip_serializing_if = "SecretRefs::is_empty")]
    pub secret_refs: SecretRefs,
    /// `volume_context` of CreateVolumeResponse, passed back unchanged.
    #[serde(default)]
    pub volume_context: BTreeMap<String, String>,
    /// `publish_context` of ControllerPublishVolumeResponse.
    #[serde(default)]
    pub publish_context: BTreeMap<String, String>,
}

/// One mount of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantMount {
    /// The container; none: every container of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<DnsLabel>,
    /// The volume, by its name in the template.
    pub volume: DnsLabel,
    /// The absolute path inside the container.
    pub mount_path: String,
    /// Whether writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// The directory of the volume that is mounted; none: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<SubPath>,
}

/// One raw block device of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantDevice {
    /// The container; none: every container of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<DnsLabel>,
    /// The volume, by its name in the template.
    pub volume: DnsLabel,
    /// The absolute path of the device node inside the container.
    pub device_path: String,
}

impl Grant {
    /// The actor, by name.
    pub fn actor_ref(&self) -> ActorRef {
        ActorRef {
            namespace: self.actor.namespace.clone(),
            name: self.actor.name.clone(),
        }
    }

    /// The highest generation that it holds.
    pub fn generation(&self) -> Generation {
        self.volumes
            .iter()
            .map(|v| v.generation)
            .max()
            .unwrap_or_default()
    }

    /// The same grant without the contexts, which may be sensitive and which a
    /// node with a control plane learns from it.
    #[must_use]
    pub fn without_contexts(&self) -> Self {
        let mut grant = self.clone();
        grant.self_contained = false;
        for volume in &mut grant.volumes {
            volume.volume_context.clear();
            volume.publish_context.clear();
        }
        grant
    }

    /// The same grant with its contexts, which counts by itself on a node that does
    /// not reach the control plane.
    #[must_use]
    pub fn with_contexts(&self) -> Self {
        Self {
            self_contained: true,
            ..self.clone()
        }
    }

    /// Whether the two differ in nothing but the contexts.
    pub fn same_word(&self, other: &Self) -> bool {
        self.without_contexts() == other.without_contexts()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

impl GrantVolume {
    /// What names the volume on a node.
    pub fn key(&self) -> VolumeKey {
        VolumeKey {
            driver: self.driver.clone(),
            volume_id: self.volume_id.clone(),
        }
    }
}

// Contexts may be sensitive: Debug shows their keys alone.
impl fmt::Debug for GrantVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantVolume")
            .field("name", &self.name)
            .field("uid", &self.uid)
            .field("generation", &self.generation)
            .field("driver", &self.driver)
            .field("volume_id", &self.volume_id)
            .field("access_mode", &self.access_mode)
            .field("volume_context", &self.volume_context.keys())
            .field("publish_context", &self.publish_context.keys())
            .finish_non_exhaustive()
    }
}
