// SPDX-License-Identifier: Apache-2.0
//! A process that enters a container's mount namespace, does what it is told there, and
//! ends. It can be killed where a file system does not answer, and whoever asked goes on
//! in a namespace of the host's.

use std::{
    io::{self, Read},
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, process::Command};

use super::{Threads, runtime};
use crate::{
    error::{Error, Kind, Result},
    host::{
        attach::{self, Order, Taking},
        child, process,
    },
};

/// An order names some hundred mounts at most.
const MAX_ORDER: u64 = 4 << 20;

/// One line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done { places: Vec<PathBuf> },
    Failed { code: i32, message: String },
}

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Attach(Order),
    Detach(Taking),
}

/// Has the volumes mounted: all, or none.
pub(super) fn attach(order: Order, within: Duration) -> Result<()> {
    run_it(&Told::Attach(order), within).map(|_| ())
}

/// Has the volumes taken away again: all, or none. Gives where they were.
pub(super) fn detach(taking: Taking, within: Duration) -> Result<Vec<PathBuf>> {
    run_it(&Told::Detach(taking), within)
}

fn run_it(told: &Told, within: Duration) -> Result<Vec<PathBuf>> {
    let failed = |e: io::Error| {
        Error::internal("cannot run the process that mounts into a container").with_source(e)
    };
    let told = serde_json::to_vec(told).map_err(|e| failed(e.into()))?;
    let asking = async {
        // Also when the file was replaced by a newer one meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("mounter")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Of nobody's pipe: who reads that would wait for its end.
            .stderr(Stdio::null())
            .kill_on_drop(true);
        child::tie(command.as_std_mut());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(&told).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        serde_json::from_slice(&output.stdout)
            .map_err(|e| io::Error::other(format!("{}: {e}", output.status)))
    };
    let answered = runtime(Threads::One)?
        .block_on(async { tokio::time::timeout(within, asking).await })
        .map_err(|_| {
            Error::deadline(format!(
                "the file systems of the container or of its volumes did not answer within {within:?}"
            ))
        })?;
    match answered.map_err(failed)? {
        Answer::Done { places } => Ok(places),
        Answer::Failed { code, message } => Err(Error::new(Kind::from_code(code), message)),
    }
}

/// The process itself: it does what standard input says.
pub(super) fn mounter() -> Result<ExitCode> {
    let failed = |e: io::Error| {
        Error::internal("the order to mount into a container is not understood").with_source(e)
    };
    process::end_with_parent().map_err(failed)?;
    let mut told = Vec::new();
    let mut input = io::stdin().take(MAX_ORDER);
    input.read_to_end(&mut told).map_err(failed)?;
    let done = match serde_json::from_slice(&told).map_err(|e| failed(e.into()))? {
        Told::Attach(order) => attach::attach(&order).map(|()| Vec::new()),
        Told::Detach(taking) => attach::detach(&taking),
    };
    let answer = match done {
        Ok(places) => Answer::Done { places },
        Err(e) => Answer::Failed {
            code: e.kind().code(),
            message: e.full_message(),
        },
    };
    let line = serde_json::to_string(&answer).map_err(|e| failed(e.into()))?;
    println!("{line}");
    Ok(ExitCode::SUCCESS)
}
