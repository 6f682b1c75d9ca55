// SPDX-License-Identifier: Apache-2.0
//! One part: a subcommand of this program as a process of its own.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Command, Stdio},
};

use tokio::process::Child;

use crate::host::{child, process};

/// The order in which they end: what needs others goes first.
const ORDER: &[&str] = &["control", "node", "helper", "local-driver"];

/// Also when the file was replaced by a newer one meanwhile: all parts are of one version.
const PROGRAM: &str = "/proc/self/exe";

/// A subcommand of this program with its options.
pub(in crate::run) struct Part {
    name: &'static str,
    words: Vec<OsString>,
    /// What it gets at its only start.
    connection: Option<OwnedFd>,
    /// It is started once, and the others end with it.
    once: bool,
    output: Option<File>,
}

impl Part {
    pub(in crate::run) fn new(
        name: &'static str,
        words: impl IntoIterator<Item = OsString>,
    ) -> Self {
        Self {
            name,
            words: words.into_iter().collect(),
            connection: None,
            once: false,
            output: None,
        }
    }

    /// It has this connection, which nobody can make anew: the end of this part is the
    /// end of all.
    pub(in crate::run) fn with(self, connection: OwnedFd) -> Self {
        Self {
            connection: Some(connection),
            once: true,
            ..self
        }
    }

    /// What it prints goes there.
    pub(in crate::run) fn printing_to(self, output: Option<File>) -> Self {
        Self { output, ..self }
    }

    pub(in crate::run) fn name(&self) -> &'static str {
        self.name
    }

    /// What ends first has the lowest.
    pub(super) fn rank(&self) -> usize {
        let known = ORDER.iter().position(|name| *name == self.name);
        known.unwrap_or(ORDER.len())
    }

    /// Whether its end is the end of all.
    pub(super) fn is_once(&self) -> bool {
        self.once
    }

    pub(super) fn start(&mut self) -> io::Result<Child> {
        let mut command = Command::new(PROGRAM);
        command
            .arg0("actor-volumes")
            .args(&self.words)
            .stdin(Stdio::piped());
        if let Some(output) = &self.output {
            command.stdout(output.try_clone()?);
            command.stderr(output.try_clone()?);
        }
        child::tie(&mut command);
        if let Some(connection) = self.connection.take() {
            child::hand_on(&mut command, connection);
        }
        tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Sends SIGTERM.
pub(super) fn ask_to_end(pid: u32) {
    if let Err(error) = process::terminate(pid) {
        tracing::warn!(pid, %error, "a part cannot be asked to end");
    }
}
