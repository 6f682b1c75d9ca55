// SPDX-License-Identifier: Apache-2.0
//! The helper: a process of its own for what enters a mounted volume. It is
//! killed at a deadline, and there is never more than one a volume: a process
//! that hangs in the kernel cannot be killed, and a second one would hang too.

use std::{
    collections::HashSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use crate::{
    error::{Error, Result},
    host::enter,
    model::VolumeKey,
    telemetry::Metrics,
};

/// How long a helper may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a process that was killed may take to end.
const LAST_BREATH: Duration = Duration::from_millis(500);
/// An answer is one short line.
const MAX_ANSWER: u64 = 4096;

/// The one line that a helper prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperAnswer {
    /// Whether anything was changed.
    pub changed: bool,
    /// The errno of the failure, where it has one.
    pub errno: Option<i32>,
    /// What failed; none: nothing.
    pub failure: Option<String>,
}

/// What a probe of a mount found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probed {
    /// It answers.
    Ok,
    /// The mount is there and its file system is not: the kernel's words.
    Corrupted(String),
    /// It does not answer in time.
    Hangs,
}

/// Starts helpers.
pub(super) struct Helpers {
    program: PathBuf,
    metrics: Arc<Metrics>,
    /// The volumes that have one.
    busy: Arc<Mutex<HashSet<VolumeKey>>>,
}

/// The volume's only place for a helper, until the process has ended.
struct Turn {
    busy: Arc<Mutex<HashSet<VolumeKey>>>,
    key: VolumeKey,
}

impl Helpers {
    /// `program` is `actor-volumes` itself.
    pub(super) fn new(program: PathBuf, metrics: Arc<Metrics>) -> Self {
        Self {
            program,
            metrics,
            busy: Arc::default(),
        }
    }

    /// Gives the root directory of this mount to the group. Nothing is done if
    /// it has it already.
    pub(super) async fn own(
        &self,
        key: &VolumeKey,
        path: &Path,
        mount: u64,
        gid: &str,
    ) -> Result<()> {
        let arguments = [
            "own".into(),
            "--path".into(),
            path.into(),
            "--mount".into(),
            mount.to_string().into(),
            "--gid".into(),
            gid.into(),
        ];
        let answer = self.run(key, &arguments).await?.ok_or_else(|| {
            Error::deadline(format!(
                "{} did not answer within {DEADLINE:?}, so it cannot be given to group {gid}",
                path.display()
            ))
        })?;
        match answer.failure {
            None => Ok(()),
            Some(failure) => Err(Error::internal(format!(
                "cannot give the root directory of the volume to group {gid}: {failure}; take fsGroup out of the template if the file system has no groups"
            ))),
        }
    }

    /// Whether the mount at this path answers.
    pub(super) async fn probe(&self, key: &VolumeKey, path: &Path) -> Result<Probed> {
        let arguments = ["probe".into(), "--path".into(), path.into()];
        let Some(answer) = self.run(key, &arguments).await? else {
            return Ok(Probed::Hangs);
        };
        Ok(match (answer.errno, answer.failure) {
            (Some(errno), Some(failure)) if enter::is_corrupted(errno) => {
                Probed::Corrupted(failure)
            }
            // Another no, such as EACCES, is an answer too.
            _ => Probed::Ok,
        })
    }

    /// Runs one helper; none: it had to be killed.
    async fn run(&self, key: &VolumeKey, arguments: &[OsString]) -> Result<Option<HelperAnswer>> {
        let turn = self.turn(key)?;
        let child = Command::new(&self.program)
            .arg("helper")
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| {
                let shown = self.program.display();
                Error::internal(format!("cannot start the helper {shown}")).with_source(e)
            })?;
        // A task of its own: whoever waits may go, the process is seen to its end.
        tokio::spawn(hear(child, turn, Arc::clone(&self.metrics)))
            .await
            .map_err(|e| Error::internal("hearing the helper broke off").with_source(e))?
    }

    fn turn(&self, key: &VolumeKey) -> Result<Turn> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(key.clone()) {
            return Err(Error::unavailable(format!(
                "a look into {key} is under way and does not end: its file system does not answer"
            )));
        }
        Ok(Turn {
            busy: Arc::clone(&self.busy),
            key: key.clone(),
        })
    }
}

async fn hear(mut child: Child, turn: Turn, metrics: Arc<Metrics>) -> Result<Option<HelperAnswer>> {
    let mut text = String::new();
    let read = async {
        if let Some(out) = child.stdout.take() {
            out.take(MAX_ANSWER).read_to_string(&mut text).await?;
        }
        child.wait().await
    };
    match tokio::time::timeout(DEADLINE, read).await {
        Ok(Ok(_)) => serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::internal("the helper gave no answer that can be read").with_source(e)
        }),
        Ok(Err(e)) => Err(Error::internal("cannot hear the helper").with_source(e)),
        Err(_) => {
            kill(child, turn, metrics).await;
            Ok(None)
        }
    }
}

/// Ends the process. One that hangs in the kernel keeps its turn until it ends.
async fn kill(mut child: Child, turn: Turn, metrics: Arc<Metrics>) {
    let _ = child.start_kill();
    if tokio::time::timeout(LAST_BREATH, child.wait())
        .await
        .is_ok()
    {
        return;
    }
    tracing::error!(
        volume = %turn.key,
        pid = child.id(),
        "a helper hangs in the kernel and cannot be killed: the file system of the volume does not answer"
    );
    metrics.stuck_helpers(1);
    tokio::spawn(async move {
        let _ = child.wait().await;
        metrics.stuck_helpers(-1);
        drop(turn);
    });
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

    fn key() -> VolumeKey {
        VolumeKey {
            driver: "d.test".parse().unwrap(),
            volume_id: "v".into(),
        }
    }

    /// Helpers that run this script.
    fn helpers(dir: &Path, script: &str) -> Helpers {
        let program = dir.join("helper");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        Helpers::new(program, Arc::new(Metrics::default()))
    }

    #[tokio::test]
    async fn a_dead_file_system_and_a_mere_no_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for (errno, found) in [(107, Probed::Corrupted("why".into())), (13, Probed::Ok)] {
            let script =
                format!("echo '{{\"changed\":false,\"errno\":{errno},\"failure\":\"why\"}}'");
            let helpers = helpers(dir.path(), &script);
            let probed = helpers.probe(&key(), Path::new("/x")).await.unwrap();
            assert_eq!(probed, found);
        }
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_killed_and_the_next_may_start() {
        let dir = tempfile::tempdir().unwrap();
        let helpers = helpers(dir.path(), "exec sleep 1000");
        let start = Instant::now();
        let key = key();
        let (first, second) = tokio::join!(helpers.probe(&key, Path::new("/x")), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            helpers.probe(&key, Path::new("/x")).await
        });
        assert_eq!(first.unwrap(), Probed::Hangs);
        // While the first lived there was no second.
        assert!(second.unwrap_err().full_message().contains("under way"));
        assert!(start.elapsed() < DEADLINE * 2);
        assert!(helpers.turn(&key).is_ok());
    }
}
