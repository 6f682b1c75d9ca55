// SPDX-License-Identifier: Apache-2.0
//! What `apply` reads.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    error::{Error, Result},
    proto::api::Applied,
};

/// More than any manifest needs; what is over it is not sent.
const LARGEST: u64 = 1024 * 1024;

/// The option of verbs that read a file.
#[derive(Debug, Args)]
pub(super) struct File {
    /// The file, YAML or JSON; - stands for stdin.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    path: PathBuf,
}

impl File {
    /// Its text.
    pub(super) fn read(&self) -> Result<String> {
        let mut text = String::new();
        let shown = self.path.display();
        let done = if self.path == Path::new("-") {
            std::io::stdin().take(LARGEST + 1).read_to_string(&mut text)
        } else {
            std::fs::File::open(&self.path)
                .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        };
        done.map_err(|e| Error::invalid(format!("cannot read {shown}")).with_source(e))?;
        if text.len() as u64 > LARGEST {
            return Err(Error::invalid(format!(
                "{shown} is larger than {LARGEST} bytes: that is no manifest"
            )));
        }
        Ok(text)
    }
}

/// What an apply did, for people.
pub(super) fn applied(applied: i32) -> &'static str {
    match Applied::try_from(applied) {
        Ok(Applied::Created) => "created",
        Ok(Applied::Changed) => "changed",
        Ok(Applied::Unchanged) => "unchanged",
        Ok(Applied::Unspecified) | Err(_) => "applied",
    }
}
