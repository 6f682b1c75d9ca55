// SPDX-License-Identifier: Apache-2.0
//! The name of a key, which follows from the key.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Hex digits of an id.
pub(super) const LENGTH: usize = 16;

/// The first 16 hex digits of the sha256 of a public key (SPKI, DER).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The id of the key with this SPKI.
    pub(super) fn of(spki: &[u8]) -> Self {
        Self(hex::encode(&Sha256::digest(spki)[..LENGTH / 2]))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == LENGTH && text.bytes().all(digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(format!(
            "the id of a key has {LENGTH} digits of 0-9 and a-f, as `actor-volumes key list` shows them"
        )))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
