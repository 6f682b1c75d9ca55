// SPDX-License-Identifier: Apache-2.0
//! Which mounts and devices a container gets. Pure; the doors only translate it.

mod given;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

pub use given::{Spec, SpecDevice, SpecMount, check_given, check_present, check_shown};

use crate::{
    error::{Error, Result},
    model::{
        ContainerView, DnsLabel, Grant, GrantDevice, GrantMount, GrantVolume, SubPath, VolumeMode,
        clean_path,
    },
};

/// A bind mount that a container must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountNeed {
    /// The volume's name in the template.
    pub volume: String,
    /// The path inside the container.
    pub destination: String,
    /// The published path on the host.
    pub source: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What else the bind is made with.
    pub flags: Flags,
}

/// What a bind mount is made with beside `nosuid` and `nodev`, which it always has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// No program in it can be executed.
    pub no_exec: bool,
    /// Its owners are shown as the container's user namespace has them.
    pub id_mapped: bool,
}

/// A block device that a container must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNeed {
    /// The path inside the container.
    pub path: String,
    /// The device's numbers.
    pub major: u32,
    /// The device's numbers.
    pub minor: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What a container must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Parents before what is below them.
    pub mounts: Vec<MountNeed>,
    /// In the order of the grant.
    pub devices: Vec<DeviceNeed>,
}

/// Where a volume is shown on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The published path.
    pub path: PathBuf,
    /// Where directories of it are shown, which are not looked up below the path.
    pub sub_paths: BTreeMap<SubPath, PathBuf>,
    /// The numbers, where it is a block device.
    pub device: Option<(u32, u32)>,
    /// What its bind mounts are made with.
    pub flags: Flags,
}

/// What this container must have.
///
/// `published` tells where each volume is shown on the host. A path that is one
/// of the container's own mounts, or would hide one, is refused.
pub fn needs(
    grant: &Grant,
    published: &BTreeMap<DnsLabel, Shown>,
    container: &ContainerView,
) -> Result<Needs> {
    let own: Vec<_> = container
        .mounts
        .iter()
        .map(|mount| (clean_path(&mount.destination), &mount.destination))
        .collect();
    let mut mounts = Vec::new();
    for mount in applying(grant, &container.name) {
        let destination = clean_path(&mount.mount_path);
        if let Some((_, hidden)) = own.iter().find(|(path, _)| path.starts_with(&destination)) {
            return Err(conflict(mount, hidden, container));
        }
        let (volume, shown) = find(grant, published, &mount.volume)?;
        if volume.volume_mode == VolumeMode::Block {
            return Err(wrong_kind(
                &mount.volume,
                "a block device, not to be mounted",
            ));
        }
        let need = MountNeed {
            volume: mount.volume.to_string(),
            destination: mount.mount_path.clone(),
            source: source(mount, shown)?,
            read_only: mount.read_only || volume.access_mode.is_read_only(),
            flags: shown.flags,
        };
        mounts.push((destination, need));
    }
    // The order of paths goes part by part: a parent is less than its children.
    mounts.sort_by(|one, other| one.0.cmp(&other.0));
    let mut devices = Vec::new();
    for device in devices_for(grant, &container.name) {
        let path = clean_path(&device.device_path);
        let own = own.iter().map(|(at, shown)| (at, shown.as_str()));
        let ours = mounts
            .iter()
            .map(|(at, need)| (at, need.destination.as_str()));
        if let Some((_, other)) = own.chain(ours).find(|(at, _)| clash(&path, at)) {
            return Err(Error::invalid(format!(
                "cannot show volume {} at {} of container {}: there is a mount at {other}: choose another devicePath in the template, below /dev",
                device.volume, device.device_path, container.name
            )));
        }
        let (volume, shown) = find(grant, published, &device.volume)?;
        let Some((major, minor)) = shown.device else {
            return Err(wrong_kind(&device.volume, "no block device"));
        };
        devices.push(DeviceNeed {
            path: device.device_path.clone(),
            major,
            minor,
            read_only: volume.access_mode.is_read_only(),
        });
    }
    Ok(Needs {
        mounts: mounts.into_iter().map(|(_, need)| need).collect(),
        devices,
    })
}

/// What is bound: the whole volume, or the directory as it is shown.
fn source(mount: &GrantMount, shown: &Shown) -> Result<PathBuf> {
    let Some(sub_path) = &mount.sub_path else {
        return Ok(shown.path.clone());
    };
    shown.sub_paths.get(sub_path).cloned().ok_or_else(|| {
        Error::internal(format!(
            "cannot mount subPath {sub_path} of volume {} at {}: it is not shown",
            mount.volume, mount.mount_path
        ))
    })
}

/// Whether a device there would hide the mount, or be made in it: the runtime
/// makes devices after the mounts, and those in /dev belong there.
fn clash(device: &Path, mount: &Path) -> bool {
    mount.starts_with(device)
        || (device.starts_with(mount) && mount != Path::new("/") && mount != Path::new("/dev"))
}

fn find<'a>(
    grant: &'a Grant,
    published: &'a BTreeMap<DnsLabel, Shown>,
    name: &DnsLabel,
) -> Result<(&'a GrantVolume, &'a Shown)> {
    let volume = grant.volumes.iter().find(|v| v.name == *name);
    volume.zip(published.get(name)).ok_or_else(|| {
        Error::internal(format!(
            "cannot give volume {name} to a container: no path is published for it"
        ))
    })
}

fn wrong_kind(name: &DnsLabel, what: &str) -> Error {
    Error::internal(format!(
        "cannot give volume {name} to a container: what is published is {what}"
    ))
}

/// The volumes that a container of this name needs, in the order of the grant.
pub fn volumes_for<'g>(grant: &'g Grant, container_name: &str) -> Vec<&'g GrantVolume> {
    let mounted = applying(grant, container_name).map(|m| &m.volume);
    let shown = devices_for(grant, container_name).map(|d| &d.volume);
    let needed: BTreeSet<_> = mounted.chain(shown).collect();
    grant
        .volumes
        .iter()
        .filter(|volume| needed.contains(&volume.name))
        .collect()
}

/// The options of the bind mount. A volume brings its actor no program that runs as
/// another user and no device, whatever the driver mounted it with.
pub fn options(need: &MountNeed) -> Vec<String> {
    let access = if need.read_only { "ro" } else { "rw" };
    let mut options = vec!["rbind", "rprivate", access, "nosuid", "nodev"];
    if need.flags.no_exec {
        options.push("noexec");
    }
    if need.flags.id_mapped {
        // All of it or nothing: what is mounted in it would else have no owner.
        options.push("ridmap");
    }
    options.into_iter().map(String::from).collect()
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

/// The devices of the grant for a container of this name.
fn devices_for<'g>(grant: &'g Grant, name: &str) -> impl Iterator<Item = &'g GrantDevice> {
    grant.devices.iter().filter(move |device| {
        device
            .container
            .as_ref()
            .is_none_or(|container| container.as_str() == name)
    })
}

fn conflict(mount: &GrantMount, own: &str, container: &ContainerView) -> Error {
    Error::invalid(format!(
        "cannot mount volume {} at {} of container {}: it would hide the container's own mount at {own}: choose another mountPath in the template",
        mount.volume, mount.mount_path, container.name
    ))
}

#[cfg(test)]
mod tests;
