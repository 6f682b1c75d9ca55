// SPDX-License-Identifier: Apache-2.0
//! The signature annotation: its text, and what it is made over.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{KeyId, id};
use crate::error::{Error, Result};

/// So that a signature for another purpose, or another version, never counts here.
const FIRST_LINE: &[u8] = b"actor-volumes.dev/v1\n";

/// 64 bytes in base64 without padding.
const ENCODED: usize = 86;

/// What is signed: the first line and the attachments, byte for byte.
pub(super) fn message(attachments: &str) -> Vec<u8> {
    [FIRST_LINE, attachments.as_bytes()].concat()
}

/// The text of a signature.
pub(super) fn write(key: &KeyId, bytes: &[u8; 64]) -> String {
    format!("{key}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads the text of a signature. Each has one spelling alone.
pub(super) fn read(text: &str) -> Result<(KeyId, [u8; 64])> {
    let broken = || {
        Error::invalid(
            "it must be <key id>.<signature>, 16 hex digits and 86 characters of base64url: give it as `actor-volumes actor resume` printed it",
        )
    };
    if text.len() != id::LENGTH + 1 + ENCODED {
        return Err(broken());
    }
    let (key, encoded) = text.split_once('.').ok_or_else(broken)?;
    let key = key.parse().map_err(|_| broken())?;
    // The decoder refuses padding and bits that stand for nothing.
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| broken())?;
    let bytes = bytes.try_into().map_err(|_| broken())?;
    Ok((key, bytes))
}
