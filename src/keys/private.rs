// SPDX-License-Identifier: Apache-2.0
//! A private key: what the control plane signs with.

use std::fmt;

use ed25519_dalek::{
    Signer, SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};
use zeroize::Zeroizing;

use super::{PublicKey, signature};
use crate::error::{Error, Result};

/// A private key. It is wiped from memory when it goes, and has no form for logs.
pub struct PrivateKey {
    key: SigningKey,
    public: PublicKey,
}

impl PrivateKey {
    /// A new one, from the kernel's randomness.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|e| {
            Error::internal(format!("the kernel gives no randomness for a key: {e}"))
        })?;
        Self::new(SigningKey::from_bytes(&seed))
    }

    fn new(key: SigningKey) -> Result<Self> {
        let public = PublicKey::new(key.verifying_key())?;
        Ok(Self { key, public })
    }

    /// Reads PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self> {
        // The cause is left out: it could quote what it has read.
        let key = SigningKey::from_pkcs8_pem(pem.trim()).map_err(|_| {
            Error::invalid(
                "it is no private Ed25519 key in PKCS#8 PEM (`BEGIN PRIVATE KEY`), not encrypted",
            )
        })?;
        Self::new(key)
    }

    /// PKCS#8 PEM, in the first version of the format: all tools read that.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        let pair = KeypairBytes {
            secret_key: self.key.to_bytes(),
            public_key: None,
        };
        pair.to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| Error::internal("a private key cannot be written as PEM"))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The value of the signature annotation for these attachments.
    pub fn sign(&self, attachments: &str) -> String {
        let made = self.key.sign(&signature::message(attachments));
        signature::write(self.public.id(), &made.to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id())
    }
}
