// SPDX-License-Identifier: Apache-2.0
//! Where the secrets of a CSI call are found. Never the secrets themselves.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{DnsLabel, check_subdomain};
use crate::error::{Error, Result};

/// The calls that may need secrets, as a StorageClass names them
/// (`csi.storage.k8s.io/<use>-secret-name`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretUse {
    /// CreateVolume and DeleteVolume.
    Provisioner,
    /// ControllerPublishVolume and ControllerUnpublishVolume.
    ControllerPublish,
    /// NodeStageVolume.
    NodeStage,
    /// NodePublishVolume.
    NodePublish,
    /// ControllerExpandVolume.
    ControllerExpand,
    /// NodeExpandVolume.
    NodeExpand,
}

impl SecretUse {
    /// Every use.
    pub const ALL: [Self; 6] = [
        Self::Provisioner,
        Self::ControllerPublish,
        Self::NodeStage,
        Self::NodePublish,
        Self::ControllerExpand,
        Self::NodeExpand,
    ];

    /// The use as a StorageClass spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::ControllerPublish => "controller-publish",
            Self::NodeStage => "node-stage",
            Self::NodePublish => "node-publish",
            Self::ControllerExpand => "controller-expand",
            Self::NodeExpand => "node-expand",
        }
    }

    /// The use as a grant spells it.
    pub const fn as_camel_case(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::ControllerPublish => "controllerPublish",
            Self::NodeStage => "nodeStage",
            Self::NodePublish => "nodePublish",
            Self::ControllerExpand => "controllerExpand",
            Self::NodeExpand => "nodeExpand",
        }
    }

    /// Whether a node makes the call.
    pub const fn is_of_node(self) -> bool {
        matches!(self, Self::NodeStage | Self::NodePublish | Self::NodeExpand)
    }
}

/// A secret by name, written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: DnsLabel,
    /// Its name, a DNS subdomain.
    pub name: String,
}

/// The secrets of a volume's calls, by use.
pub type SecretRefs = BTreeMap<SecretUse, SecretRef>;

impl SecretRef {
    /// Checks both names.
    pub fn new(namespace: &str, name: &str) -> Result<Self> {
        check_subdomain(name).map_err(|e| e.context("the name of a secret"))?;
        Ok(Self {
            namespace: DnsLabel::new(namespace)
                .map_err(|e| e.context("the namespace of a secret"))?,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| {
            Error::invalid(format!(
                "the secret {text:?} must be written as namespace/name"
            ))
        })?;
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for SecretRef {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> Self {
        secret.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_namespace_and_name_and_by_no_path() {
        let secret: SecretRef = "storage/nfs.creds".parse().unwrap();
        assert_eq!(secret.to_string(), "storage/nfs.creds");
        for bad in ["nfs", "a/b/c", "../x", "a/..", "/x", "a/", "A/b"] {
            assert!(bad.parse::<SecretRef>().is_err(), "{bad}");
        }
    }
}
