// SPDX-License-Identifier: Apache-2.0
//! The public keys that are trusted, and what a signature is worth under them. Pure.

use std::collections::BTreeMap;

use super::{KeyId, PublicKey, signature};
use crate::error::{Error, Result};

/// So many keys are named where one is missing.
const FEW: usize = 8;

/// Public keys by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<KeyId, PublicKey>,
}

impl KeySet {
    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.keys()
    }

    /// Whether the signature names a key that is not among them. One that cannot be
    /// read names none.
    pub fn lacks_the_key_of(&self, text: &str) -> bool {
        signature::read(text).is_ok_and(|(key, _)| !self.keys.contains_key(&key))
    }

    /// An error unless a key of the set has made this signature over these attachments.
    pub fn verify(&self, attachments: &str, text: &str) -> Result<()> {
        let (id, bytes) = signature::read(text)?;
        let Some(key) = self.keys.get(&id) else {
            let known: Vec<_> = self.ids().map(KeyId::as_str).collect();
            let known = match known.as_slice() {
                [] => "it trusts none".to_owned(),
                known if known.len() > FEW => format!("it trusts {} others", known.len()),
                known => format!("it trusts {}", known.join(", ")),
            };
            return Err(Error::unavailable(format!(
                "it is by key {id}, which this node does not trust ({known}): give the node that key (docs/operations.md), or resume the actor for a signature by a key that it has"
            )));
        };
        if key.verify(attachments, &bytes) {
            return Ok(());
        }
        Err(Error::denied(format!(
            "key {id} has not made it over these attachments: they were changed, or belong to another resume; give all annotations of one `actor-volumes actor resume`"
        )))
    }
}

impl FromIterator<PublicKey> for KeySet {
    fn from_iter<T: IntoIterator<Item = PublicKey>>(keys: T) -> Self {
        let keys = keys.into_iter().map(|key| (key.id().clone(), key));
        Self {
            keys: keys.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
