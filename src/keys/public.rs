// SPDX-License-Identifier: Apache-2.0
//! A public key: what a node trusts.

use std::fmt;

use ed25519_dalek::{
    VerifyingKey,
    pkcs8::{DecodePublicKey, EncodePublicKey, spki::der::pem::LineEnding},
};

use super::{KeyId, signature};
use crate::error::{Error, Result};

/// A public key with its id.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads SPKI PEM. A key for which signatures could be made without its private
    /// half, or that has a second spelling, is refused.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let key = VerifyingKey::from_public_key_pem(pem.trim()).map_err(|e| {
            Error::invalid(format!(
                "it is no public Ed25519 key in PEM (`BEGIN PUBLIC KEY`): {e}"
            ))
        })?;
        Self::new(key)
    }

    pub(super) fn new(key: VerifyingKey) -> Result<Self> {
        if key.is_weak() || !is_canonical(key.as_bytes()) {
            return Err(Error::invalid(
                "the key is of small order, or not in its only allowed spelling: make one with `actor-volumes key generate`",
            ));
        }
        let spki = key
            .to_public_key_der()
            .map_err(|e| Error::internal(format!("a public key cannot be written as SPKI: {e}")))?;
        Ok(Self {
            id: KeyId::of(spki.as_bytes()),
            key,
        })
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// SPKI PEM.
    pub fn to_pem(&self) -> Result<String> {
        self.key.to_public_key_pem(LineEnding::LF).map_err(|e| {
            Error::internal(format!(
                "public key {} cannot be written as PEM: {e}",
                self.id
            ))
        })
    }

    /// Whether this key has made the signature over these attachments.
    pub(super) fn verify(&self, attachments: &str, bytes: &[u8; 64]) -> bool {
        let made = ed25519_dalek::Signature::from_bytes(bytes);
        self.key
            .verify_strict(&signature::message(attachments), &made)
            .is_ok()
    }
}

/// Whether the coordinate is below the prime 2^255 - 19: another spelling of the same
/// point would give the key a second id.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let all_ones = bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|b| *b == 0xff);
    !(all_ones && bytes[0] >= 0xed)
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}
