// SPDX-License-Identifier: Apache-2.0
//! The keys of grants: who signs, who is trusted, and the files that hold them.
//!
//! A signature is `<key id>.<base64url>`: Ed25519 over a fixed first line and the
//! attachments, byte for byte. Private keys are PKCS#8 PEM, public ones SPKI PEM.

mod dir;
mod file;
mod id;
mod private;
mod public;
mod set;
mod signature;
mod trust;

pub use dir::{Found, KeyDir, State};
pub use file::write_told;
pub use id::KeyId;
pub use private::PrivateKey;
pub use public::PublicKey;
pub use set::KeySet;
pub use trust::TrustedKeys;
