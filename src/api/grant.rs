// SPDX-License-Identifier: Apache-2.0
//! The rules of a grant: what it may hold, and who may present it.

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

pub use wire::parse;

use super::rule::{self, MAX_MOUNTS, MAX_STRING_BYTES, MAX_VOLUMES, check_mount_path};
use crate::{
    error::{Error, Result},
    model::{
        Audience, DnsLabel, Generation, Grant, GrantVolume, NodeName, SandboxView, VolumeMode,
        check_subdomain,
    },
};

/// The version of the format.
pub const VERSION: u32 = 1;

/// The longest id of a container.
const MAX_CONTAINER_BYTES: usize = 253;

/// The largest group id that Kubernetes takes as an fsGroup.
const MAX_GID: u32 = i32::MAX as u32;

/// Checks everything that the types alone do not hold.
pub fn check(grant: &Grant) -> Result<()> {
    if grant.version != VERSION {
        return Err(Error::invalid(format!(
            "version {} of a grant is not known: this version of actor-volumes reads version {VERSION}",
            grant.version
        )));
    }
    check_audience(grant)?;
    if grant.volumes.is_empty() {
        return Err(Error::invalid("volumes must name at least one volume"));
    }
    if grant.volumes.len() > MAX_VOLUMES {
        return Err(Error::invalid(format!(
            "volumes names {} volumes: at most {MAX_VOLUMES}",
            grant.volumes.len()
        )));
    }
    if grant.mounts.len() > MAX_MOUNTS {
        return Err(Error::invalid(format!(
            "mounts names {} mounts: at most {MAX_MOUNTS}",
            grant.mounts.len()
        )));
    }
    if grant.devices.len() > MAX_MOUNTS {
        return Err(Error::invalid(format!(
            "devices names {} devices: at most {MAX_MOUNTS}",
            grant.devices.len()
        )));
    }
    for (index, volume) in grant.volumes.iter().enumerate() {
        check_volume(volume).map_err(|e| e.context(format_args!("volumes[{index}]")))?;
    }
    check_unique(&grant.volumes)?;
    check_places(grant)
}

fn check_audience(grant: &Grant) -> Result<()> {
    match &grant.audience {
        Audience::Pod { pod: None, .. } => Ok(()),
        Audience::Pod { pod: Some(pod), .. } => {
            check_subdomain(pod).map_err(|e| e.context("audience.pod"))
        }
        Audience::Host { node, .. } if *node != grant.node => Err(Error::invalid(format!(
            "audience.node {node} is not the node of the grant, {}",
            grant.node
        ))),
        Audience::Host {
            container: Some(container),
            ..
        } => check_container(container),
        Audience::Host {
            container: None, ..
        } => Ok(()),
    }
}

/// The id of a container, as runtimes take it.
fn check_container(id: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && id.len() <= MAX_CONTAINER_BYTES && id.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "audience.container must have 1 to {MAX_CONTAINER_BYTES} letters, digits, and _.- after the first"
    )))
}

fn check_volume(volume: &GrantVolume) -> Result<()> {
    let broken = |field: &str, reason: String| Error::invalid(format!("{field} {reason}"));
    if volume.generation < Generation(1) {
        return Err(Error::invalid("generation must be at least 1"));
    }
    if volume.volume_id.is_empty() || volume.volume_id.len() > MAX_STRING_BYTES {
        return Err(Error::invalid(format!(
            "volumeId must have 1 to {MAX_STRING_BYTES} bytes"
        )));
    }
    check_mount_group(volume)?;
    if let Some(use_) = volume.secret_refs.keys().find(|u| !u.is_of_node()) {
        return Err(Error::invalid(format!(
            "secretRefs names {}, which is no call of a node",
            use_.as_camel_case()
        )));
    }
    rule::check_fs_type(&volume.fs_type).map_err(|r| broken("fsType", r))?;
    rule::check_mount_flags(&volume.mount_flags).map_err(|r| broken("mountFlags", r))?;
    rule::check_map(&volume.volume_context).map_err(|r| broken("volumeContext", r))?;
    rule::check_map(&volume.publish_context).map_err(|r| broken("publishContext", r))
}

/// The group is sent as text, so that there is one way to write it.
fn check_mount_group(volume: &GrantVolume) -> Result<()> {
    let group = &volume.mount_group;
    if group.is_empty() {
        return Ok(());
    }
    if volume.volume_mode == VolumeMode::Block {
        return Err(Error::invalid(
            "mountGroup is for a volume with files, and volumeMode is Block",
        ));
    }
    match group.parse::<u32>() {
        Ok(gid) if (1..=MAX_GID).contains(&gid) && gid.to_string() == *group => Ok(()),
        _ => Err(Error::invalid(format!(
            "mountGroup {group:?} must be a number from 1 to {MAX_GID}, without a sign or leading zeros"
        ))),
    }
}

fn check_unique(volumes: &[GrantVolume]) -> Result<()> {
    let mut names = BTreeSet::new();
    let mut uids = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let twice = if !names.insert(&volume.name) {
            format!("name {}", volume.name)
        } else if !uids.insert(&volume.uid) {
            format!("uid {}", volume.uid)
        } else if !keys.insert((&volume.driver, &volume.volume_id)) {
            format!(
                "volumeId {:?} of driver {}",
                volume.volume_id, volume.driver
            )
        } else {
            continue;
        };
        return Err(Error::invalid(format!(
            "volumes[{index}]: {twice} is there twice"
        )));
    }
    Ok(())
}

/// Every volume has a place in a container, of its own kind: files are mounted,
/// a block device is shown. No two share a path in one container.
fn check_places(grant: &Grant) -> Result<()> {
    let modes: BTreeMap<&DnsLabel, VolumeMode> = grant
        .volumes
        .iter()
        .map(|v| (&v.name, v.volume_mode))
        .collect();
    let mut placed = BTreeSet::new();
    let mut paths: BTreeMap<&str, Vec<Option<&DnsLabel>>> = BTreeMap::new();
    for place in places(grant) {
        let refuse = |reason: String| Err(Error::invalid(format!("{place}: {reason}")));
        match modes.get(place.volume) {
            None => return refuse(format!("{} is no volume of this grant", place.volume)),
            Some(mode) if *mode != place.mode => {
                return refuse(format!(
                    "volume {} has volumeMode {mode:?}: give it {}",
                    place.volume,
                    match mode {
                        VolumeMode::Block => "devices and no mounts",
                        VolumeMode::Filesystem => "mounts and no devices",
                    }
                ));
            }
            Some(_) => {}
        }
        placed.insert(place.volume);
        if let Err(reason) = check_mount_path(place.path) {
            return refuse(format!("{} {reason}", place.field));
        }
        let users = paths.entry(place.path).or_default();
        if users.iter().any(|other| overlap(*other, place.container)) {
            return refuse(format!(
                "{} {:?} is there twice for {}",
                place.field,
                place.path,
                place
                    .container
                    .map_or("every container".to_owned(), |c| format!("container {c}"))
            ));
        }
        users.push(place.container);
    }
    match grant.volumes.iter().find(|v| !placed.contains(&v.name)) {
        None => Ok(()),
        Some(v) => Err(Error::invalid(match v.volume_mode {
            VolumeMode::Filesystem => format!("volume {} has no mount", v.name),
            VolumeMode::Block => format!("volume {} has no device", v.name),
        })),
    }
}

/// A mount or a device.
struct Place<'g> {
    list: &'static str,
    index: usize,
    field: &'static str,
    mode: VolumeMode,
    container: Option<&'g DnsLabel>,
    volume: &'g DnsLabel,
    path: &'g str,
}

fn places(grant: &Grant) -> impl Iterator<Item = Place<'_>> {
    let mounts = grant.mounts.iter().enumerate().map(|(index, m)| Place {
        list: "mounts",
        index,
        field: "mountPath",
        mode: VolumeMode::Filesystem,
        container: m.container.as_ref(),
        volume: &m.volume,
        path: &m.mount_path,
    });
    let devices = grant.devices.iter().enumerate().map(|(index, d)| Place {
        list: "devices",
        index,
        field: "devicePath",
        mode: VolumeMode::Block,
        container: d.container.as_ref(),
        volume: &d.volume,
        path: &d.device_path,
    });
    mounts.chain(devices)
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}

/// Whether two places may meet in one container; no name stands for every name.
fn overlap(one: Option<&DnsLabel>, other: Option<&DnsLabel>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn check_node(grant: &Grant, node: &NodeName) -> Result<()> {
    if grant.node == *node {
        return Ok(());
    }
    Err(Error::denied(format!(
        "the grant of actor {} is for node {}, and this is node {node}: resume the actor on this node",
        grant.actor_ref(),
        grant.node
    )))
}

/// Checks that this container of this node, which no pod holds, may present the grant.
pub fn check_presented_by_host(grant: &Grant, node: &NodeName, container: &str) -> Result<()> {
    let actor = grant.actor_ref();
    check_node(grant, node)?;
    match &grant.audience {
        Audience::Pod { .. } => Err(Error::denied(format!(
            "the grant of actor {actor} is for a pod, and a container that no pod holds presents it: resume the actor with --host"
        ))),
        Audience::Host {
            container: Some(granted),
            ..
        } if granted != container => Err(Error::denied(format!(
            "the grant of actor {actor} is for container {granted:?}, and the container is {container:?}: resume the actor for this container"
        ))),
        Audience::Host { .. } => Ok(()),
    }
}

/// Checks that this sandbox on this node may present the grant.
pub fn check_presented(grant: &Grant, node: &NodeName, sandbox: &SandboxView) -> Result<()> {
    let actor = grant.actor_ref();
    check_node(grant, node)?;
    let Audience::Pod { namespace, pod } = &grant.audience else {
        return Err(Error::denied(format!(
            "the grant of actor {actor} is for a container of the host, and a pod presents it: resume the actor for this pod"
        )));
    };
    if namespace.as_str() != sandbox.namespace {
        return Err(Error::denied(format!(
            "the grant of actor {actor} is for pods of namespace {namespace}, and the pod is in namespace {:?}: resume the actor for this namespace",
            sandbox.namespace
        )));
    }
    if let Some(pod) = pod
        && *pod != sandbox.name
    {
        return Err(Error::denied(format!(
            "the grant of actor {actor} is for pod {pod:?}, and the pod is {:?}: resume the actor for this pod",
            sandbox.name
        )));
    }
    Ok(())
}

/// Checks that a scope may begin with the grant at this time.
pub fn check_time(grant: &Grant, now: Timestamp) -> Result<()> {
    match grant.not_after {
        Some(end) if now > end => Err(Error::precondition(format!(
            "the grant of actor {} was to begin until {end}, and it is {now}: suspend the actor and resume it again (and see that the clocks agree)",
            grant.actor_ref()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
