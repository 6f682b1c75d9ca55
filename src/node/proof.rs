// SPDX-License-Identifier: Apache-2.0
//! The proof that nobody uses a volume any more (I11, I2).

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    cri::Cri,
    csi::{CallError, Outcome},
    error::{Error, Kind, Result},
    host::{
        holders::{self, Holder},
        mount,
        mountinfo::{self, Identity},
        process,
    },
};

/// Reading mount tables may hang on a sick kernel; nothing may hang with it.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Looks at the host on behalf of the workers.
#[derive(Debug)]
pub struct Proof {
    runtime_socket: PathBuf,
    sight: AtomicBool,
}

impl Proof {
    /// `cri` tells whose processes must be in sight.
    pub fn new(cri: &Cri) -> Self {
        Self {
            runtime_socket: cri.socket().into(),
            sight: AtomicBool::new(false),
        }
    }

    /// Who holds the volume in another mount namespace; none: nobody does.
    ///
    /// Proves first that the runtime's processes are in sight at all (I8): an
    /// agent in a process namespace of its own would see no holder, ever.
    pub async fn holder(
        &self,
        volume: Identity,
        known: Vec<PathBuf>,
        containers: Vec<String>,
        driver_socket: Option<PathBuf>,
    ) -> Result<Option<Holder>> {
        let sighted = self.sight.load(Ordering::Relaxed);
        let runtime = self.runtime_socket.clone();
        let found = look("the mount namespaces of all processes", move || {
            if !sighted {
                prove_sight(&runtime)?;
            }
            let driver = driver_socket.and_then(|s| process::listener_pid(&s).ok().flatten());
            let known: Vec<&Path> = known.iter().map(PathBuf::as_path).collect();
            holders::find(&volume, &known, driver.as_slice(), &containers).map_err(|e| {
                Error::internal("cannot look through the mount namespaces in /proc: the node agent needs the host's process namespace, and /proc without hidepid")
                    .with_source(e)
            })
        })
        .await??;
        self.sight.store(true, Ordering::Relaxed);
        Ok(found)
    }
}

fn prove_sight(runtime: &Path) -> Result<()> {
    match process::listener_pid(runtime) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Error::precondition(
            "the runtime's processes are not in sight, so no exit can be proven: run the node agent in the host's process namespace (hostPID)",
        )),
        Err(e) => Err(Error::unavailable(format!(
            "the runtime at {} does not answer, so it is not proven that its processes are in sight",
            runtime.display()
        ))
        .with_source(e)),
    }
}

/// What is mounted at exactly this path.
pub async fn mounted(path: PathBuf) -> Result<Option<Identity>> {
    look("the mount table", move || {
        let failed = |e: std::io::Error| {
            Error::internal(format!("cannot look at the mount at {}", path.display()))
                .with_source(e)
        };
        match mount::is_mount_point(&path) {
            Ok(true) => Ok(mountinfo::at(&path).map_err(failed)?.map(|m| m.identity)),
            Ok(false) => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // A corrupted mount answers stat with an error and is a mount all
            // the same: the table tells.
            Err(_) => Ok(mountinfo::at(&path).map_err(failed)?.map(|m| m.identity)),
        }
    })
    .await?
}

/// What the driver said to a call that ends the mount at this path.
///
/// A driver that keeps nothing in mind answers NOT_FOUND where an earlier try
/// was carried out after all, and would do so for ever. That the mount is gone
/// is for us to see.
pub async fn undone(said: Result<(), CallError>, path: &Path) -> Result<()> {
    match said {
        Err(e)
            if e.outcome == Outcome::Final
                && e.error.kind() == Kind::NotFound
                && mounted(path.to_owned()).await?.is_none() =>
        {
            tracing::info!(path = %path.display(), "{e}; nothing is mounted there: done");
            Ok(())
        }
        said => Ok(said?),
    }
}

/// Runs a look at the host in a thread of its own, with a deadline.
pub async fn look<T: Send + 'static>(
    at: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(LOOK_DEADLINE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(Error::internal(format!("looking at {at} failed")).with_source(e)),
        Err(_) => Err(Error::deadline(format!(
            "looking at {at} took longer than {LOOK_DEADLINE:?}"
        ))),
    }
}
