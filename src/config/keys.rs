// SPDX-License-Identifier: Apache-2.0
//! Where the keys of grants are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use crate::error::{Error, Result};

/// The keys of grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// The control plane's keys: the private one that signs, and the public ones below
    /// `public`; none: `keys` in `node.state_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Directories of public keys, `*.pem`, that this node trusts beside those of its
    /// control plane; read again when they change.
    pub trusted: Vec<PathBuf>,
}

impl Keys {
    pub(super) fn check(&self) -> Result<()> {
        match self
            .dir
            .iter()
            .chain(&self.trusted)
            .find(|p| !p.is_absolute())
        {
            None => Ok(()),
            Some(path) => Err(Error::invalid(format!(
                "keys: {} must be an absolute path",
                path.display()
            ))),
        }
    }
}

impl Config {
    /// The directory of the control plane's keys.
    pub fn key_dir(&self) -> PathBuf {
        let dir = self.keys.dir.clone();
        dir.unwrap_or_else(|| self.node.state_dir.join("keys"))
    }

    /// Where a node with its control plane elsewhere keeps the public keys that it was
    /// told.
    pub fn told_key_dir(&self) -> PathBuf {
        self.node.state_dir.join("told-keys")
    }
}
