// SPDX-License-Identifier: Apache-2.0
//! The proof that nobody uses a volume any more (I11, I2).

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    sight::{self, Maker, Sight},
    together::Together,
};
use crate::{
    cri::{Cri, Listing},
    error::{Error, Result},
    host::{
        device::{self, Device},
        enter,
        holders::{self, Holder, Query},
        mount,
        mountinfo::{self, Identity, Mount},
    },
};

/// Reading mount tables may hang on a sick kernel; nothing may hang with it.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Looks at the host and the runtime on behalf of the workers.
pub struct Proof {
    sight: Arc<Sight>,
    holders: Together<Holding, Option<Holder>>,
    listings: Together<(), Arc<Listing>>,
}

/// A question for the holders of a volume, and the socket of its driver, whose
/// own processes do not count.
struct Holding {
    query: Query,
    driver: Option<PathBuf>,
}

impl Proof {
    /// `cri` tells whose processes must be in sight; `mount_root` where mounts must.
    pub fn new(cri: &Cri, mount_root: &Path) -> Self {
        let sight = Arc::new(Sight::new(
            cri.socket().map(Path::to_owned),
            mount_root.into(),
        ));
        let (seen, cri) = (Arc::clone(&sight), cri.clone());
        Self {
            sight,
            holders: Together::new(move |asked| find(asked, Arc::clone(&seen))),
            listings: Together::new(move |asked: Vec<()>| {
                let cri = cri.clone();
                async move {
                    let listing = Arc::new(cri.list().await?);
                    Ok(vec![listing; asked.len()])
                }
            }),
        }
    }

    /// What the runtime lists. The listing begins after the question was asked.
    pub async fn listing(&self) -> Result<Arc<Listing>> {
        self.listings.ask(()).await
    }

    /// Who holds the volume in another mount namespace; none: nobody does. The
    /// look begins after the question was asked.
    pub async fn holder(
        &self,
        volume: Identity,
        known: Vec<PathBuf>,
        containers: Vec<String>,
        driver: Option<PathBuf>,
    ) -> Result<Option<Holder>> {
        let query = Query {
            volume,
            known,
            passed_over: Vec::new(),
            containers,
        };
        self.holders.ask(Holding { query, driver }).await
    }

    /// Whether the runtime's processes are in sight: an error says why not.
    pub async fn sight(&self) -> Result<()> {
        let sight = Arc::clone(&self.sight);
        look("the runtime's socket", move || sight.processes()).await?
    }

    /// A process of those that make containers was seen.
    pub(super) fn seen(&self) {
        self.sight.seen();
    }

    /// Whether what the driver mounts appears here and to the runtime: an error
    /// says why not.
    pub(super) async fn sight_of(&self, driver: Option<Maker>) -> Result<()> {
        let sight = Arc::clone(&self.sight);
        look("the mounts of the driver and the runtime", move || {
            sight.mounts(driver.as_ref())
        })
        .await?
    }

    /// Who uses the block device: no mount shows it. None: nobody does.
    pub async fn user(
        &self,
        device: Device,
        containers: Vec<String>,
        driver: Option<PathBuf>,
    ) -> Result<Option<Holder>> {
        let sight = Arc::clone(&self.sight);
        look("the processes in /proc", move || {
            sight.processes()?;
            let driver = driver.and_then(|socket| sight::pid_of(&socket));
            device::holder(device, driver.as_slice(), &containers).map_err(|e| unseen(&e))
        })
        .await?
    }
}

fn unseen(cause: &io::Error) -> Error {
    Error::internal(format!(
        "cannot look through the processes in /proc ({cause}): the node agent needs the host's process namespace, and /proc without hidepid"
    ))
}

async fn find(asked: Vec<Holding>, sight: Arc<Sight>) -> Result<Vec<Option<Holder>>> {
    look("the processes in /proc", move || {
        sight.processes()?;
        let mut drivers = HashMap::new();
        let with_driver = |asked: Holding| {
            let pid = asked.driver.and_then(|socket| {
                *drivers
                    .entry(socket)
                    .or_insert_with_key(|s| sight::pid_of(s))
            });
            let mut query = asked.query;
            query.passed_over.extend(pid);
            query
        };
        let queries: Vec<_> = asked.into_iter().map(with_driver).collect();
        holders::find(&queries).map_err(|e| unseen(&e))
    })
    .await?
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

/// The topmost mount at exactly this path.
pub async fn mount_at(path: PathBuf) -> Result<Option<Mount>> {
    look("the mount table", move || {
        let table = mountinfo::own().map_err(|e| {
            Error::internal(format!("cannot look at the mount at {}", path.display()))
                .with_source(e)
        })?;
        let mut there = table.into_iter().filter(|m| m.mount_point == path);
        Ok(there.next_back())
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
