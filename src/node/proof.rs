// SPDX-License-Identifier: Apache-2.0
//! The proof that nobody uses a volume any more (I11, I2).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    cri::Cri,
    error::{Error, Result},
    host::{
        device::{self, Device},
        enter,
        holders::{self, Holder, Query},
        mount,
        mountinfo::{self, Identity, Mount},
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
    asked: Arc<Mutex<Asked>>,
}

/// Questions that wait for the next look: many volumes that are released at once
/// share one.
#[derive(Debug, Default)]
struct Asked {
    waiting: Vec<(Query, oneshot::Sender<Result<Option<Holder>>>)>,
    looking: bool,
}

impl Proof {
    /// `cri` tells whose processes must be in sight.
    pub fn new(cri: &Cri) -> Self {
        Self {
            runtime_socket: cri.socket().into(),
            sight: AtomicBool::new(false),
            asked: Arc::default(),
        }
    }

    /// Who holds the volume in another mount namespace; none: nobody does. The
    /// look begins after the question was asked.
    pub async fn holder(
        &self,
        volume: Identity,
        known: Vec<PathBuf>,
        containers: Vec<String>,
        driver_socket: Option<PathBuf>,
    ) -> Result<Option<Holder>> {
        let driver = self.sighted(driver_socket).await?;
        let query = Query {
            volume,
            known,
            passed_over: driver.into_iter().collect(),
            containers,
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut asked = lock(&self.asked);
            asked.waiting.push((query, answer));
            if !std::mem::replace(&mut asked.looking, true) {
                tokio::spawn(look_for_all(Arc::clone(&self.asked)));
            }
        }
        answered
            .await
            .unwrap_or_else(|_| Err(Error::internal("the look for holders broke off")))
    }

    /// Who uses the block device: no mount shows it. None: nobody does.
    pub async fn user(
        &self,
        device: Device,
        containers: Vec<String>,
        driver_socket: Option<PathBuf>,
    ) -> Result<Option<Holder>> {
        let driver = self.sighted(driver_socket).await?;
        look("the processes in /proc", move || {
            device::holder(device, driver.as_slice(), &containers).map_err(|e| unseen(&e))
        })
        .await?
    }

    /// Proves first that the runtime's processes are in sight at all (I8): an
    /// agent in a process namespace of its own would see no holder, ever. Gives
    /// the driver's process, where it can be told.
    async fn sighted(&self, driver_socket: Option<PathBuf>) -> Result<Option<u32>> {
        let sighted = self.sight.load(Ordering::Relaxed);
        let runtime = self.runtime_socket.clone();
        let driver = look("the runtime and the driver", move || {
            if !sighted {
                prove_sight(&runtime)?;
            }
            Ok::<_, Error>(driver_socket.and_then(|s| process::listener_pid(&s).ok().flatten()))
        })
        .await??;
        self.sight.store(true, Ordering::Relaxed);
        Ok(driver)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unseen(cause: &io::Error) -> Error {
    Error::internal(format!(
        "cannot look through the processes in /proc ({cause}): the node agent needs the host's process namespace, and /proc without hidepid"
    ))
}

/// Looks until nobody asks any more.
async fn look_for_all(asked: Arc<Mutex<Asked>>) {
    loop {
        let waiting = {
            let mut asked = lock(&asked);
            asked.looking = !asked.waiting.is_empty();
            std::mem::take(&mut asked.waiting)
        };
        if waiting.is_empty() {
            return;
        }
        let (queries, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let found = look("the processes in /proc", move || {
            holders::find(&queries).map_err(|e| unseen(&e))
        });
        match found.await.and_then(|found| found) {
            Ok(found) => {
                for (answer, found) in answers.into_iter().zip(found) {
                    // Who asked may have given up meanwhile.
                    let _ = answer.send(Ok(found));
                }
            }
            Err(e) => {
                for answer in answers {
                    let _ = answer.send(Err(Error::new(e.kind(), e.full_message())));
                }
            }
        }
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

/// What is at a path, seen without entering it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What is mounted at exactly this path, the topmost last.
    pub mounts: Vec<Mount>,
    /// The block device that it is.
    pub device: Option<Device>,
    /// The topmost mount shows nothing but our own directories.
    pub hollow: bool,
}

/// Whether something is mounted at a path: all that the kernel tells without
/// its whole mount table, which may be long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glance {
    /// Nothing is mounted at exactly this path.
    Nothing,
    /// Something is.
    Mount,
    /// Something is, and the file system behind it is not: the kernel's word.
    Corrupted(String),
}

impl Seen {
    /// The topmost mount.
    pub fn mount(&self) -> Option<&Mount> {
        self.mounts.last()
    }

    /// Whether nothing is published or staged there.
    pub fn is_nothing(&self) -> bool {
        self.mounts.is_empty() && self.device.is_none()
    }
}

/// Glances at a path.
pub async fn glance(path: PathBuf) -> Result<Glance> {
    look("the mount at a path", move || {
        match mount::is_mount_point(&path) {
            Ok(true) => Glance::Mount,
            Ok(false) => Glance::Nothing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Glance::Nothing,
            Err(e) if e.raw_os_error().is_some_and(enter::is_corrupted) => {
                Glance::Corrupted(e.to_string())
            }
            // What may not be looked at is there.
            Err(_) => Glance::Mount,
        }
    })
    .await
}

/// Looks at a path of a volume whose own directory is `volume_dir`.
pub async fn see(path: PathBuf, volume_dir: PathBuf) -> Result<Seen> {
    look("the mount table", move || {
        let failed = |e: io::Error| {
            Error::internal(format!("cannot look at the mount at {}", path.display()))
                .with_source(e)
        };
        let mut seen = Seen::default();
        match mount::is_mount_point(&path) {
            Ok(false) => {
                seen.device = device::at(&path).map_err(failed)?;
                return Ok(seen);
            }
            Ok(true) => seen.device = device::at(&path).map_err(failed)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(seen),
            // A corrupted mount answers with an error and is a mount all the
            // same: the table tells.
            Err(_) => {}
        }
        let table = mountinfo::own().map_err(failed)?;
        let ours = mountinfo::place(&table, &volume_dir);
        seen.mounts = table
            .into_iter()
            .filter(|m| m.mount_point == path)
            .collect();
        seen.hollow = seen
            .mount()
            .is_some_and(|m| ours.is_some_and(|ours| ours.contains(&m.identity)));
        Ok(seen)
    })
    .await?
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
