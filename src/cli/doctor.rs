// SPDX-License-Identifier: Apache-2.0
//! `doctor`: looks at a node, and says of everything that must be so whether it
//! is, and what to do where it is not.

mod containerd;
mod judge;
mod keys;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::Output;
use crate::{
    config::{self, Config},
    error::Result,
    proto::api::AgentStatus,
};

pub use containerd::RuntimeSettings;
pub use judge::judge;

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = config::PATH_VARIABLE, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Ok,
    /// It works, and something is missing, or could not be looked at.
    Warn,
    /// It does not work, or containers may run without their volumes.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do; empty: nothing.
    pub fix: String,
}

/// What was seen of a directory's file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its type, such as `ext4`.
    pub fs_type: String,
    /// Mounts reach other mount namespaces, or come from there.
    pub propagates: bool,
}

/// What was seen of the keys of grants.
#[derive(Debug, Clone, Default)]
pub struct KeyFacts {
    /// The ids of the public keys that this node trusts.
    pub trusted: Vec<String>,
    /// Files that cannot be read, with why.
    pub problems: Vec<String>,
    /// For how many days the control plane's key has signed, or what is wrong with it;
    /// none: it is elsewhere.
    pub signing: Option<Result<u64, String>>,
}

/// All that was seen. An error is why something could not be looked at.
pub struct Facts {
    /// The configuration.
    pub config: Config,
    /// What the daemon says of itself.
    pub daemon: Result<AgentStatus>,
    /// Whether somebody listens on the NRI socket.
    pub nri_socket: Result<()>,
    /// The keys of grants.
    pub keys: KeyFacts,
    /// The runtime's own configuration.
    pub containerd: Result<RuntimeSettings>,
    /// Binaries of the runtime's configuration that are the guard.
    pub guards: Vec<String>,
    /// The real runtime of the guard.
    pub real_runtime: Result<PathBuf>,
    /// The mount root.
    pub mount_root: Result<Place>,
    /// The state directory.
    pub state_dir: Result<Place>,
    /// Mount points below the mount root that no record names.
    pub strays: Result<Vec<String>>,
    /// Whether the runtime's processes are in sight.
    pub sight: Result<()>,
    /// Definitions of hooks that call a program of ours, with the program where that is
    /// not there.
    pub hooks: Vec<(PathBuf, Option<PathBuf>)>,
    /// Drivers of the configuration whose socket cannot be reached, with why.
    pub silent_drivers: Vec<(String, String)>,
}

impl Doctor {
    /// Prints the findings; whether none of them is a failure.
    pub fn print(&self, findings: &[Finding]) -> Result<bool> {
        self.output.print(&findings, || text(findings))?;
        Ok(findings.iter().all(|f| f.level < Level::Fail))
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for found in findings {
        let level = match found.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text.push_str(&format!("{level}  {}: {}\n", found.check, found.message));
        if !found.fix.is_empty() {
            text.push_str(&format!("      → {}\n", found.fix));
        }
    }
    text
}
