// SPDX-License-Identifier: Apache-2.0
//! Names and identifiers, each a type of its own with its rule.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the rule of this name.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// A DNS label (RFC 1123): at most 63 of `a-z`, `0-9` and `-`, with a letter
    /// or digit at both ends. Names of volumes, containers, actors, namespaces.
    DnsLabel, check_dns_label
}
text_type! {
    /// The name of a CSI driver: at most 63 characters, domain-like (CSI spec, GetPluginInfo).
    DriverName, check_driver_name
}
text_type! {
    /// The name of a node, a DNS subdomain of at most 253 characters.
    NodeName, check_subdomain
}
text_type! {
    /// The unique id of one actor; never used again.
    ActorUid, check_uid
}
text_type! {
    /// The unique id of one volume; its CSI name is `av-<uid>`.
    VolumeUid, check_uid
}
text_type! {
    /// Which container runtime a thing was seen in: the door and the socket,
    /// such as `cri:/run/containerd/containerd.sock`.
    RuntimeId, check_printable
}

impl ActorUid {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

impl VolumeUid {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The name given to CreateVolume: the idempotency key of CSI.
    pub fn csi_name(&self) -> String {
        format!("av-{}", self.0)
    }
}

fn check_dns_label(text: &str) -> Result<()> {
    let ok = !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} is not a DNS label: use at most 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"
    )))
}

/// The rule of a DNS subdomain, for names that have no type of their own.
pub(crate) fn check_subdomain(text: &str) -> Result<()> {
    let ok = !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|l| check_dns_label(l).is_ok());
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} is not a DNS subdomain: use labels of a-z, 0-9 and '-', joined by '.', at most 253 characters"
    )))
}

fn check_driver_name(text: &str) -> Result<()> {
    let ok = !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} is not a CSI driver name: use at most 63 letters, digits, '-' and '.', starting and ending with a letter or digit"
    )))
}

fn check_uid(text: &str) -> Result<()> {
    let ok = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} is not a uid: use at most 64 letters, digits and '-'"
    )))
}

fn check_printable(text: &str) -> Result<()> {
    if !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} is not a runtime id: it must be 1 to 256 printable characters"
    )))
}

/// An actor by name: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorRef {
    /// The namespace it lives in.
    pub namespace: DnsLabel,
    /// Its name, unique in the namespace.
    pub name: DnsLabel,
}

impl FromStr for ActorRef {
    type Err = Error;

    /// Reads `namespace/name`.
    fn from_str(text: &str) -> Result<Self> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| {
            Error::invalid(format!("actor {text:?} must be written namespace/name"))
        })?;
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for ActorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A number of a volume that only grows: every resume allocates a new one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What names a volume on a node: the driver and the driver's own id.
///
/// The id is opaque and may hold any character, so it never becomes a part of a
/// path; [`VolumeKey::hash`] does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeKey {
    /// The CSI driver.
    pub driver: DriverName,
    /// `volume_id` of CreateVolumeResponse.
    pub volume_id: String,
}

impl VolumeKey {
    /// 32 hex digits: the start of sha256(driver, NUL, volume id).
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.driver.as_str());
        hash.update([0]);
        hash.update(&self.volume_id);
        hex::encode(&hash.finalize()[..16])
    }
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} of {}", self.volume_id, self.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_follow_rfc_1123() {
        for good in ["a", "a-b", "0", &"x".repeat(63)] {
            assert!(DnsLabel::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "ä", &"x".repeat(64)] {
            assert!(DnsLabel::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_actor_is_read_from_namespace_and_name() {
        let actor: ActorRef = "agents/my-agent-1".parse().unwrap();
        assert_eq!(actor.to_string(), "agents/my-agent-1");
        assert!("my-agent-1".parse::<ActorRef>().is_err());
        assert!("a/b/c".parse::<ActorRef>().is_err());
    }

    #[test]
    fn the_hash_keeps_driver_and_id_apart() {
        let key = |driver: &str, id: &str| VolumeKey {
            driver: driver.parse().unwrap(),
            volume_id: id.into(),
        };
        assert_eq!(key("a", "b").hash().len(), 32);
        assert_ne!(key("a", "bc").hash(), key("ab", "c").hash());
    }
}
