// SPDX-License-Identifier: Apache-2.0
//! What this process can see at all. That something is absent proves nothing to one
//! who would not see it (I8).

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    host::{
        place, process,
        reach::{self, View},
    },
};

/// How long a proof holds: a driver may start again in another container.
const HOLDS: Duration = Duration::from_secs(60);

/// Who mounts: where it listens, and where it has the mount root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Maker {
    /// For people.
    pub(super) who: &'static str,
    pub(super) socket: PathBuf,
    pub(super) mount_root: PathBuf,
}

/// The proofs so far. Every look may block.
#[derive(Debug)]
pub(super) struct Sight {
    /// None: this node has no CRI.
    runtime: Option<PathBuf>,
    mount_root: PathBuf,
    processes: AtomicBool,
    mounts: Mutex<HashMap<Option<Maker>, Instant>>,
}

impl Sight {
    /// Of the runtime at this socket, and of mounts below the mount root.
    pub(super) fn new(runtime: Option<PathBuf>, mount_root: PathBuf) -> Self {
        // The kernel shows paths without symbolic links.
        let mount_root = mount_root.canonicalize().unwrap_or(mount_root);
        Self {
            runtime,
            mount_root,
            processes: AtomicBool::new(false),
            mounts: Mutex::default(),
        }
    }

    /// Proves, once, that the runtime's processes are in sight: an agent in a
    /// process namespace of its own would see no holder, ever.
    pub(super) fn processes(&self) -> Result<()> {
        if !self.processes.load(Ordering::Relaxed) {
            let Some(runtime) = &self.runtime else {
                return Err(Error::precondition(
                    "it is not proven that the processes of containers are in sight, so no exit can be: no container has come by a hook, the wrapper or a bundle since the node agent was started in this process namespace",
                ));
            };
            runtime_pid(runtime)?;
            self.seen();
        }
        Ok(())
    }

    /// A process of those that make containers was seen.
    pub(super) fn seen(&self) {
        self.processes.store(true, Ordering::Relaxed);
    }

    /// Proves that what the driver mounts below the mount root appears here, and to
    /// the runtime, which would else give containers an empty directory. Of a driver
    /// whose process is not to be seen it is proven for mounts of this process.
    pub(super) fn mounts(&self, driver: Option<&Maker>) -> Result<()> {
        let key = driver.cloned();
        let known = |at: &Instant| at.elapsed() < HOLDS;
        if self.proven().get(&key).is_some_and(known) {
            return Ok(());
        }
        let view = |pid| View {
            pid,
            directory: self.mount_root.clone(),
        };
        let own = view(std::process::id());
        let pid = driver.and_then(|d| pid_of(&d.socket));
        let (maker, who) = match (driver, pid) {
            (Some(driver), Some(pid)) => (
                View {
                    pid,
                    directory: driver.mount_root.clone(),
                },
                format!("{} at {}", driver.who, driver.socket.display()),
            ),
            _ => (own.clone(), "the node agent".to_owned()),
        };
        // Without a CRI whoever is given a volume looks that it is there.
        let runtime = self.runtime.as_deref().map(runtime_pid).transpose()?;
        let viewers = runtime.map(|pid| (view(pid), "the runtime"));
        for (viewer, of) in [(own, "the node agent")].into_iter().chain(viewers) {
            let hidden = match reach::reaches(&maker, &viewer) {
                Ok(Ok(())) => continue,
                Ok(Err(hidden)) => hidden.to_string(),
                // Not to be told of processes with more capabilities.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.root_propagates()?;
                    continue;
                }
                Err(e) => {
                    return Err(Error::internal(format!(
                        "cannot compare the mounts of processes {} and {}",
                        maker.pid, viewer.pid
                    ))
                    .with_source(e));
                }
            };
            return Err(Error::precondition(format!(
                "{of} would not see what is mounted below {}: {who} {hidden}; a container that mounts there needs the directory with mountPropagation Bidirectional, and the mount below it on the host is to be shared (mount --make-rshared /)",
                self.mount_root.display()
            )));
        }
        self.proven().insert(key, Instant::now());
        Ok(())
    }

    fn proven(&self) -> MutexGuard<'_, HashMap<Option<Maker>, Instant>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn root_propagates(&self) -> Result<()> {
        let root = self.mount_root.display();
        let seen = place::of(&self.mount_root)
            .map_err(|e| Error::internal(format!("cannot look at {root}")).with_source(e))?;
        match seen.propagates {
            true => Ok(()),
            false => Err(Error::precondition(format!(
                "{root} lies on a private mount, and the processes of the driver and the runtime may not be looked at: it is not proven that their mounts appear here"
            ))),
        }
    }
}

fn runtime_pid(socket: &Path) -> Result<u32> {
    match process::listener_pid(socket) {
        Ok(Some(pid)) => Ok(pid),
        Ok(None) => Err(Error::precondition(
            "the runtime's processes are not in sight, so no exit can be proven: run the node agent in the host's process namespace (hostPID)",
        )),
        Err(e) => Err(Error::unavailable(format!(
            "the runtime at {} does not answer, so it is not proven that its processes are in sight",
            socket.display()
        ))
        .with_source(e)),
    }
}

/// The process that listens there, where it can be told.
pub(super) fn pid_of(socket: &Path) -> Option<u32> {
    process::listener_pid(socket).ok().flatten()
}
