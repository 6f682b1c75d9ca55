// SPDX-License-Identifier: Apache-2.0
//! Which mounts a container gets. Pure; the doors only translate it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    model::{ContainerView, DnsLabel, Grant, GrantMount, GrantVolume},
};

/// A bind mount that a container must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountNeed {
    /// The path inside the container.
    pub destination: String,
    /// The published path on the host.
    pub source: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The mounts of this container, parents before what is below them.
///
/// `published` tells where each volume is shown on the host. A destination that
/// is one of the container's own, or would hide one, is refused.
pub fn mounts(
    grant: &Grant,
    published: &BTreeMap<DnsLabel, PathBuf>,
    container: &ContainerView,
) -> Result<Vec<MountNeed>> {
    let own: Vec<_> = container
        .mounts
        .iter()
        .map(|mount| (clean(&mount.destination), &mount.destination))
        .collect();
    let mut needs = Vec::new();
    for mount in applying(grant, &container.name) {
        let destination = clean(&mount.mount_path);
        if let Some((_, hidden)) = own.iter().find(|(path, _)| path.starts_with(&destination)) {
            return Err(conflict(mount, hidden, container));
        }
        if !mount.sub_path.is_empty() {
            return Err(Error::unimplemented(format!(
                "cannot mount a subPath of volume {} at {}: leave it out",
                mount.volume, mount.mount_path
            )));
        }
        let source = published.get(&mount.volume).ok_or_else(|| {
            Error::internal(format!(
                "cannot mount volume {} at {} of container {}: no path is published for it",
                mount.volume, mount.mount_path, container.name
            ))
        })?;
        needs.push((destination, mount, source));
    }
    // The order of paths goes part by part: a parent is less than its children.
    needs.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(needs
        .into_iter()
        .map(|(_, mount, source)| MountNeed {
            destination: mount.mount_path.clone(),
            source: source.clone(),
            read_only: mount.read_only,
        })
        .collect())
}

/// The volumes that a container of this name needs, in the order of the grant.
pub fn volumes_for<'g>(grant: &'g Grant, container_name: &str) -> Vec<&'g GrantVolume> {
    let needed: BTreeSet<_> = applying(grant, container_name).map(|m| &m.volume).collect();
    grant
        .volumes
        .iter()
        .filter(|volume| needed.contains(&volume.name))
        .collect()
}

/// The options of the bind mount.
pub fn options(need: &MountNeed) -> Vec<String> {
    let access = if need.read_only { "ro" } else { "rw" };
    ["rbind", "rprivate", access].map(String::from).to_vec()
}

/// The mounts of the grant for a container of this name; a mount without a
/// container is for every one.
fn applying<'g>(grant: &'g Grant, name: &str) -> impl Iterator<Item = &'g GrantMount> {
    grant.mounts.iter().filter(move |mount| {
        mount
            .container
            .as_ref()
            .is_none_or(|container| container.as_str() == name)
    })
}

/// The path without empty, `.` and `..` parts, as a runtime resolves it in a
/// root without links.
fn clean(path: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Path::new("/").join(parts.join("/"))
}

fn conflict(mount: &GrantMount, own: &str, container: &ContainerView) -> Error {
    Error::invalid(format!(
        "cannot mount volume {} at {} of container {}: it would hide the container's own mount at {own}: choose another mountPath in the template",
        mount.volume, mount.mount_path, container.name
    ))
}

#[cfg(test)]
mod tests;
