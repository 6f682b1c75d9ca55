// SPDX-License-Identifier: Apache-2.0
//! The real OCI runtime behind what stands in its place.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Error, Result},
    oci,
};

/// The first of these that is there. Never this program itself, which would call itself
/// for ever.
pub(super) fn find(named: &[PathBuf]) -> Result<PathBuf> {
    let own = fs::metadata("/proc/self/exe")
        .map(|m| (m.dev(), m.ino()))
        .ok();
    let is_other = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && Some((m.dev(), m.ino())) != own)
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let one = |named: &PathBuf| {
        if named.components().count() > 1 {
            return Some(named.clone()).filter(is_other);
        }
        let mut candidates = env::split_paths(&path).map(|dir| dir.join(named));
        candidates.find(is_other)
    };
    named.iter().find_map(one).ok_or_else(|| {
        let shown: Vec<_> = named.iter().map(|n| n.display().to_string()).collect();
        Error::precondition(format!(
            "the real runtime {} is not there, or is this guard itself: set guard.runtime to its path",
            shown.join(" or ")
        ))
    })
}

/// Becomes it: process id, descriptors, signals and exit status are its own from here on.
/// What it gives is why it did not.
pub(super) fn become_it(real: &Path, arguments: &[OsString]) -> Error {
    let error = Command::new(real).args(arguments).exec();
    Error::internal(format!(
        "cannot start the real runtime {}: set guard.runtime",
        real.display()
    ))
    .with_source(error)
}

/// Whether it is gVisor's.
pub(super) fn is_gvisor(real: &Path) -> bool {
    let name = real.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("runsc"))
}

/// Where it keeps what it knows of containers unless told otherwise.
pub(super) fn default_root(real: &Path) -> Option<PathBuf> {
    let name = real.file_name()?;
    let run = if is_gvisor(real) { "/var/run" } else { "/run" };
    Some(Path::new(run).join(name))
}

/// Whether it can show a mount with the owners of the container's user namespace. It is
/// asked.
pub(super) fn maps_owners(real: &Path) -> Result<()> {
    let asked = Command::new(real)
        .arg("features")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Error::internal(format!("cannot start {} features", real.display())).with_source(e)
        })?;
    if asked.status.success() && oci::maps_owners(&asked.stdout) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "the container has a user namespace, and {} does not tell by `features` that it maps the owners of mounts: use a runtime that can, such as runc 1.2 or later",
        real.display()
    )))
}
