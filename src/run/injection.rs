// SPDX-License-Identifier: Apache-2.0
//! What a container's grant asks for is published, and written into its bundle's
//! config.json; or neither.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    door::{self, Container, Way},
    real,
};
use crate::{
    config::GuardSettings,
    error::{Error, Kind, Result, Retry},
    host::{mountinfo, replace::Original},
    oci::{
        self, MAX_CONFIG_BYTES,
        edit::{self, Given, GivenDevice, GivenMount},
    },
    proto::api::{Door, GiveContainerResponse, Process},
};

/// So long a release may hold up whoever does not need it.
pub(super) const RELEASE_WITHIN: Duration = Duration::from_millis(500);

/// A container that is to be made of a bundle.
pub(super) struct Injection<'a> {
    pub(super) settings: &'a GuardSettings,
    /// Its id at the runtime.
    pub(super) id: &'a str,
    /// Where it is found there.
    pub(super) container: Container<'a>,
    pub(super) door: Door,
    /// The process that makes it; none: it is made later.
    pub(super) process: Option<Process>,
    /// The runtime that is to make it; none: not known.
    pub(super) runtime: Option<&'a Path>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It asks for no volume.
    NothingAsked,
    /// It has its volumes, and they are right.
    WasThere,
    /// It has them now.
    Given,
}

impl Injection<'_> {
    /// Gives the container its volumes. After a failure nothing is changed.
    pub(super) fn inject(&self) -> Result<Done> {
        let path = self.config();
        let (original, config) = open(&path)?;
        let question = |config: &[u8]| {
            let spec = oci::parse(config).map_err(|e| e.context(path.display()))?;
            oci::question(self.id, spec)
        };
        let Some(mut asked) = question(&config)? else {
            return Ok(Done::NothingAsked);
        };
        let mut bare = config;
        if asked.missing.is_none() {
            let Err(refused) = door::check(self.settings, &self.container, asked) else {
                return Ok(Done::WasThere);
            };
            // It may be what a container was given that was made of this bundle before.
            bare = edit::release(&bare, &self.settings.mount_root)?;
            asked = match question(&bare)? {
                Some(again) if again.missing.is_some() => again,
                _ => return Err(refused),
            };
        } else {
            bare = edit::release(&bare, &self.settings.mount_root)?;
            asked.spec = oci::parse(&bare)?.spec;
        }
        let namespace = edit::user_namespace(&bare)?;
        if namespace.is_some() {
            self.check_maps_owners()?;
        }
        let way = Way {
            door: self.door,
            process: self.process,
            map_owners: namespace.is_some(),
            user_namespace: namespace.unwrap_or_default(),
        };
        let answer = match door::give(self.settings, &self.container, way, asked) {
            Ok(answer) => answer,
            // It may be published all the same: the answer was lost.
            Err(e) if e.kind().retry() == Retry::Later => return Err(self.released(e)),
            Err(e) => return Err(e),
        };
        check_seen(&answer)
            .and_then(|()| edit::inject(&bare, &self.given(answer)?))
            .and_then(|new| {
                let replaced = original.replace(&new);
                replaced.map_err(|e| failed(&path, "write", e))
            })
            .map(|()| Done::Given)
            .map_err(|e| self.released(e))
    }

    /// Takes everything back after a failure, which is what matters: what is not released
    /// here the node agent releases once it sees that it is over.
    pub(super) fn released(&self, failure: Error) -> Error {
        let settings = GuardSettings {
            give_deadline: RELEASE_WITHIN,
            ..self.settings.clone()
        };
        let _ = door::release(&settings, self.id, &self.container, None, 0);
        failure
    }

    /// Takes out of the bundle's config.json what was given. Where there is no such file
    /// any more, there is nothing to do.
    pub(super) fn take_out(&self) -> Result<()> {
        let path = self.config();
        let (original, config) = match open(&path) {
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            opened => opened?,
        };
        let left = edit::release(&config, &self.settings.mount_root)
            .map_err(|e| e.context(path.display()))?;
        if left == config {
            return Ok(());
        }
        original
            .replace(&left)
            .map_err(|e| failed(&path, "write", e))
    }

    fn config(&self) -> PathBuf {
        self.container.bundle.join("config.json")
    }

    fn check_maps_owners(&self) -> Result<()> {
        match self.runtime {
            Some(runtime) => real::maps_owners(runtime),
            None => Err(Error::invalid(
                "the container has a user namespace, and it is not told which runtime makes it, so not whether that maps the owners of mounts: name it",
            )),
        }
    }

    fn given(&self, answer: GiveContainerResponse) -> Result<Given> {
        let gvisor = self.runtime.is_some_and(real::is_gvisor);
        if let Some(device) = answer.devices.first().filter(|_| gvisor) {
            return Err(Error::unimplemented(format!(
                "cannot show a volume as the block device {}: gVisor has no block devices: use volumeMode Filesystem in the template, or another runtime",
                device.path
            )));
        }
        let mounts = answer.mounts.into_iter().map(|m| GivenMount {
            destination: m.destination,
            source: m.source,
            options: m.options,
            volume: m.volume,
        });
        let devices = answer.devices.into_iter().map(|d| GivenDevice {
            path: d.path,
            major: d.major,
            minor: d.minor,
            read_only: d.read_only,
        });
        Ok(Given {
            mounts: mounts.collect(),
            devices: devices.collect(),
            mount_root: answer.mount_root.into(),
        })
    }
}

/// What is published must be seen from here, where the runtime looks for it: in another
/// mount namespace there may be an empty directory.
fn check_seen(given: &GiveContainerResponse) -> Result<()> {
    if given.mounts.is_empty() {
        return Ok(());
    }
    let table = mountinfo::own()
        .map_err(|e| Error::internal("cannot read /proc/self/mountinfo").with_source(e))?;
    for mount in &given.mounts {
        let source = Path::new(&mount.source);
        // The last part is the volume's, which may not answer.
        let parent = source.parent().and_then(|p| p.canonicalize().ok());
        let real = parent.zip(source.file_name()).map(|(p, name)| p.join(name));
        let at = table
            .iter()
            .rfind(|m| Some(&m.mount_point) == real.as_ref());
        if at.is_none_or(|at| at.identity.device != mount.device) {
            return Err(Error::precondition(format!(
                "volume {} is published at {} and not seen there from the runtime's mount namespace: let the mounts of node.mount_root propagate to it",
                mount.volume, mount.source
            )));
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<(Original, Vec<u8>)> {
    let original = Original::open(path).map_err(|e| failed(path, "open", e))?;
    let config = original.read(MAX_CONFIG_BYTES);
    let config = config.map_err(|e| failed(path, "read", e))?;
    Ok((original, config))
}

fn failed(path: &Path, what: &str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::FailedPrecondition,
    };
    Error::new(kind, format!("cannot {what} {}", path.display())).with_source(error)
}
