// SPDX-License-Identifier: Apache-2.0
//! The rules of a grant: what it may hold, and who may present it.

mod wire;

use std::collections::{BTreeMap, BTreeSet};

pub use wire::parse;

use super::rule::{self, MAX_MOUNTS, MAX_STRING_BYTES, MAX_VOLUMES, check_mount_path};
use crate::{
    error::{Error, Result},
    model::{
        AccessMode, Audience, DnsLabel, Generation, Grant, GrantVolume, NodeName, SandboxView,
        VolumeMode, check_subdomain,
    },
};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Checks everything that the types alone do not hold.
pub fn check(grant: &Grant) -> Result<()> {
    if grant.version != VERSION {
        return Err(Error::invalid(format!(
            "version {} of a grant is not known: this version of actor-volumes reads version {VERSION}",
            grant.version
        )));
    }
    check_audience(&grant.audience)?;
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
    if !grant.devices.is_empty() {
        return Err(unsupported("devices"));
    }
    for (index, volume) in grant.volumes.iter().enumerate() {
        check_volume(volume).map_err(|e| e.context(format_args!("volumes[{index}]")))?;
    }
    check_unique(&grant.volumes)?;
    check_mounts(grant)
}

fn check_audience(audience: &Audience) -> Result<()> {
    match audience {
        Audience::Pod { pod: None, .. } => Ok(()),
        Audience::Pod { pod: Some(pod), .. } => {
            check_subdomain(pod).map_err(|e| e.context("audience.pod"))
        }
        Audience::Host { .. } => Err(unsupported("audience.kind host")),
    }
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
    if volume.volume_mode == VolumeMode::Block {
        return Err(unsupported("volumeMode Block"));
    }
    if !matches!(
        volume.access_mode,
        AccessMode::SingleNodeSingleWriter | AccessMode::SingleNodeWriter
    ) {
        return Err(unsupported(&format!(
            "accessMode {}",
            volume.access_mode.as_str()
        )));
    }
    if !volume.mount_group.is_empty() {
        return Err(unsupported("mountGroup"));
    }
    if !volume.secret_refs.is_empty() {
        return Err(unsupported("secretRefs"));
    }
    rule::check_fs_type(&volume.fs_type).map_err(|r| broken("fsType", r))?;
    rule::check_mount_flags(&volume.mount_flags).map_err(|r| broken("mountFlags", r))?;
    rule::check_map(&volume.volume_context).map_err(|r| broken("volumeContext", r))?;
    rule::check_map(&volume.publish_context).map_err(|r| broken("publishContext", r))
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

fn check_mounts(grant: &Grant) -> Result<()> {
    let mut unmounted: BTreeSet<&DnsLabel> = grant.volumes.iter().map(|v| &v.name).collect();
    let names = unmounted.clone();
    let mut paths: BTreeMap<&str, Vec<Option<&DnsLabel>>> = BTreeMap::new();
    for (index, mount) in grant.mounts.iter().enumerate() {
        let refuse = |reason: String| Err(Error::invalid(format!("mounts[{index}]: {reason}")));
        if !names.contains(&mount.volume) {
            return refuse(format!("{} is no volume of this grant", mount.volume));
        }
        unmounted.remove(&mount.volume);
        if let Err(reason) = check_mount_path(&mount.mount_path) {
            return refuse(format!("mountPath {reason}"));
        }
        if !mount.sub_path.is_empty() {
            return Err(unsupported("subPath").context(format_args!("mounts[{index}]")));
        }
        let container = mount.container.as_ref();
        let users = paths.entry(&mount.mount_path).or_default();
        if users.iter().any(|other| overlap(*other, container)) {
            return refuse(format!(
                "mountPath {:?} is there twice for {}",
                mount.mount_path,
                container.map_or("every container".to_owned(), |c| format!("container {c}"))
            ));
        }
        users.push(container);
    }
    match unmounted.first() {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!("volume {name} has no mount"))),
    }
}

/// Whether two mounts may meet in one container; no name stands for every name.
fn overlap(one: Option<&DnsLabel>, other: Option<&DnsLabel>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn unsupported(what: &str) -> Error {
    Error::invalid(format!(
        "{what} is not supported by this version of actor-volumes"
    ))
}

/// Checks that this sandbox on this node may present the grant.
pub fn check_presented(grant: &Grant, node: &NodeName, sandbox: &SandboxView) -> Result<()> {
    let actor = grant.actor_ref();
    if grant.node != *node {
        return Err(Error::denied(format!(
            "the grant of actor {actor} is for node {}, and this is node {node}: resume the actor on this node",
            grant.node
        )));
    }
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

#[cfg(test)]
pub(super) mod tests;
