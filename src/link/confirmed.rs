// SPDX-License-Identifier: Apache-2.0
//! Whether the control plane has taken this state directory for one that has all of
//! its records. It is on disk, for a node that is started while it is cut off.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::instance;
use crate::{
    error::{Error, Result},
    host::durable,
};

const FILE: &str = "confirmed";

/// The word of the control plane on a state directory.
pub(super) struct Confirmed {
    path: PathBuf,
    instance: String,
}

impl Confirmed {
    /// Of this state directory, with what was said last.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, bool)> {
        let confirmed = Self {
            path: state_dir.join(FILE),
            instance: instance(state_dir)?,
        };
        let said = match fs::read_to_string(&confirmed.path) {
            Ok(text) => text == confirmed.instance,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(confirmed.failed("read", e)),
        };
        Ok((confirmed, said))
    }

    /// Durable when it returns.
    pub(super) fn say(&self, confirmed: bool) -> Result<()> {
        let said = if confirmed {
            durable::write(&self.path, self.instance.as_bytes())
        } else {
            durable::remove(&self.path)
        };
        said.map_err(|e| self.failed("change", e))
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::internal(format!("cannot {what} {}", self.path.display())).with_source(error)
    }
}
