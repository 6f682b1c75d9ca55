// SPDX-License-Identifier: Apache-2.0
//! Drivers that register themselves, as they do with a kubelet: each has a socket
//! in the registration directory, and tells there its name and its endpoint
//! (`pluginregistration.Registration/GetInfo`).
//!
//! Only GetInfo is called. Whether a driver is registered with its kubelet is the
//! kubelet's word to it, not ours.

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{DriverConfig, Registry, call::sanitise};
use crate::{
    error::{Error, Result},
    model::DriverName,
    proto::registration::{InfoRequest, registration_client::RegistrationClient},
    transport,
};

/// How often the directory is read.
const EVERY: Duration = Duration::from_secs(2);

/// How long a registrar has to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// What a driver of CSI calls itself there.
const PLUGIN_TYPE: &str = "CSIPlugin";

/// The directory, and what its drivers do not say themselves.
pub struct Discovery {
    /// The registration directory; it may appear later.
    pub dir: PathBuf,
    /// The deadline of each call to a driver that was found.
    pub call_timeout: Duration,
}

/// A socket as it was seen: another one of the same name is another driver start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    inode: u64,
    changed: Option<SystemTime>,
}

impl Discovery {
    /// Reads the directory until it is told to stop.
    pub async fn run(self, registry: Arc<Registry>, shutdown: CancellationToken) {
        let mut known: BTreeMap<PathBuf, (Seen, Option<DriverName>)> = BTreeMap::new();
        loop {
            self.look(&registry, &mut known).await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn look(
        &self,
        registry: &Registry,
        known: &mut BTreeMap<PathBuf, (Seen, Option<DriverName>)>,
    ) {
        let dir = self.dir.clone();
        let there = tokio::task::spawn_blocking(move || sockets(&dir)).await;
        let there = match there {
            Ok(Ok(there)) => there,
            // What cannot be read now proves nothing of the drivers.
            Ok(Err(e)) => {
                tracing::warn!(dir = %self.dir.display(), error = %e, "cannot read the registration directory");
                return;
            }
            Err(_) => return,
        };
        known.retain(|path, (_, name)| {
            let stays = there.contains_key(path);
            if !stays && let Some(name) = name {
                tracing::info!(driver = %name, "the driver took its registration back");
                registry.unregistered(name);
            }
            stays
        });
        for (path, seen) in there {
            if known
                .get(&path)
                .is_some_and(|(before, name)| *before == seen && name.is_some())
            {
                continue;
            }
            let first_time = known.get(&path).is_none_or(|(before, _)| *before != seen);
            let name = match self.ask(&path).await {
                Ok(config) => {
                    let name = config.name.clone();
                    if registry.registered(config) {
                        tracing::info!(driver = %name, "a driver registered itself");
                    }
                    Some(name)
                }
                Err(e) => {
                    // It is asked again, but told of once.
                    if first_time {
                        tracing::warn!(socket = %path.display(), error = %e.full_message(), "a registration socket cannot be used");
                    }
                    None
                }
            };
            known.insert(path, (seen, name));
        }
    }

    async fn ask(&self, socket: &Path) -> Result<DriverConfig> {
        let asking = async {
            let channel = transport::connect(socket, WITHIN).await?;
            let answer = RegistrationClient::new(channel)
                .get_info(InfoRequest {})
                .await;
            answer.map_err(|status| {
                Error::unavailable(format!(
                    "GetInfo was answered with: {}",
                    sanitise(status.message())
                ))
            })
        };
        let info = tokio::time::timeout(WITHIN, asking)
            .await
            .unwrap_or_else(|_| {
                Err(Error::deadline(format!(
                    "GetInfo had no answer within {WITHIN:?}"
                )))
            })?
            .into_inner();
        if info.r#type != PLUGIN_TYPE {
            return Err(Error::invalid(format!(
                "it registers a plugin of type {:?}, not {PLUGIN_TYPE}",
                sanitise(&info.r#type)
            )));
        }
        let one = |version: &String| version == "1" || version.starts_with("1.");
        if !info.supported_versions.iter().any(one) {
            return Err(Error::invalid(
                "it supports no version 1 of CSI: use a newer driver",
            ));
        }
        let endpoint = Path::new(&info.endpoint);
        if !endpoint.is_absolute() {
            return Err(Error::invalid(format!(
                "its endpoint {:?} is no absolute path",
                sanitise(&info.endpoint)
            )));
        }
        let name = DriverName::new(info.name)?;
        Ok(DriverConfig::unix(name, endpoint, self.call_timeout))
    }
}

/// The sockets of the directory; none if it does not exist.
fn sockets(dir: &Path) -> io::Result<BTreeMap<PathBuf, Seen>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        match entry.metadata() {
            Ok(meta) if meta.file_type().is_socket() && !hidden => {
                let seen = Seen {
                    inode: meta.ino(),
                    changed: meta.modified().ok(),
                };
                found.insert(entry.path(), seen);
            }
            // It went meanwhile, or is something else.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}
