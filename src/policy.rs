// SPDX-License-Identifier: Apache-2.0
//! What this node lets a pod have of volumes, whatever a grant says. Pure: the grant,
//! its pod and the policy in; yes, or the rule that says no, out.

mod paths;

use std::collections::BTreeSet;

pub use paths::{DENIED, PathRules};

use crate::{
    error::Error,
    model::{DnsLabel, DriverName, Grant, SandboxView, VolumeMode},
};

/// All there are, or those of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<T> {
    /// All there are.
    All,
    /// These alone.
    Only(BTreeSet<T>),
}

impl<T: Ord> Choice<T> {
    /// Whether it is among them.
    pub fn has(&self, one: &T) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.contains(one),
        }
    }
}

/// What pods of this node may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The drivers whose volumes are given.
    pub drivers: Choice<DriverName>,
    /// The namespaces whose pods get volumes.
    pub namespaces: Choice<String>,
    /// Where in a container volumes may be.
    pub paths: PathRules,
    /// The drivers whose volumes are mounted `noexec`.
    pub no_exec: Choice<DriverName>,
    /// Whether block devices are given.
    pub block_devices: bool,
    /// The most volumes of one pod.
    pub max_volumes: usize,
    /// The most mounts of one grant.
    pub max_mounts: usize,
    /// The most devices of one grant.
    pub max_devices: usize,
}

/// The rules, by the key of the table `[policy]` that each is set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `drivers`
    Drivers,
    /// `namespaces`
    Namespaces,
    /// `deny_mount_paths`, `allow_mount_paths`
    MountPaths,
    /// The same, and the nodes that runtimes make, for devices.
    DevicePaths,
    /// `block_devices`
    BlockDevices,
    /// `max_volumes`
    MaxVolumes,
    /// `max_mounts`
    MaxMounts,
    /// `max_devices`
    MaxDevices,
}

impl Rule {
    /// Its name, for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drivers => "drivers",
            Self::Namespaces => "namespaces",
            Self::MountPaths => "mount_paths",
            Self::DevicePaths => "device_paths",
            Self::BlockDevices => "block_devices",
            Self::MaxVolumes => "max_volumes",
            Self::MaxMounts => "max_mounts",
            Self::MaxDevices => "max_devices",
        }
    }
}

/// Why a grant is not served on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule that forbids it.
    pub rule: Rule,
    /// Which rule forbids what, and what to do.
    pub message: String,
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::denied(denial.message)
    }
}

fn deny(rule: Rule, message: String) -> Result<(), Denial> {
    Err(Denial { rule, message })
}

/// Whether the pod may have what the grant says. `beside` is how many volumes other
/// grants have given to the same pod, and not taken back.
pub fn decide(
    grant: &Grant,
    sandbox: &SandboxView,
    beside: usize,
    policy: &Policy,
) -> Result<(), Denial> {
    let actor = grant.actor_ref();
    if !policy.namespaces.has(&sandbox.namespace) {
        return deny(
            Rule::Namespaces,
            format!(
                "policy.namespaces of this node does not name namespace {:?}, so its pods get no volumes: add it there, or run the pod of actor {actor} elsewhere",
                sandbox.namespace
            ),
        );
    }
    for volume in &grant.volumes {
        if !policy.drivers.has(&volume.driver) {
            return deny(
                Rule::Drivers,
                format!(
                    "policy.drivers of this node does not name driver {} of volume {} of actor {actor}: add it there, or use a storage class of another driver",
                    volume.driver, volume.name
                ),
            );
        }
        if volume.volume_mode == VolumeMode::Block && !policy.block_devices {
            return deny(
                Rule::BlockDevices,
                format!(
                    "policy.block_devices of this node is false, and volume {} of actor {actor} is a block device: set it to true, or use volumeMode Filesystem",
                    volume.name
                ),
            );
        }
    }
    limits(grant, beside, policy)?;
    for mount in &grant.mounts {
        if let Err(why) = policy.paths.check(&mount.mount_path) {
            return deny(
                Rule::MountPaths,
                format!(
                    "policy.deny_mount_paths of this node forbids volume {} of actor {actor} at {}, {why}: choose another mountPath in the template, or name the path in policy.allow_mount_paths",
                    mount.volume, mount.mount_path
                ),
            );
        }
    }
    for device in &grant.devices {
        if let Err(why) = policy.paths.check_device(&device.device_path) {
            return deny(
                Rule::DevicePaths,
                format!(
                    "policy.deny_mount_paths of this node forbids volume {} of actor {actor} as device {}, {why}: choose another devicePath in the template, such as /dev/xvda",
                    device.volume, device.device_path
                ),
            );
        }
    }
    Ok(())
}

fn limits(grant: &Grant, beside: usize, policy: &Policy) -> Result<(), Denial> {
    let actor = grant.actor_ref();
    let volumes = grant.volumes.len().saturating_add(beside);
    for (rule, what, has, most) in [
        (Rule::MaxVolumes, "volumes", volumes, policy.max_volumes),
        (
            Rule::MaxMounts,
            "mounts",
            grant.mounts.len(),
            policy.max_mounts,
        ),
        (
            Rule::MaxDevices,
            "devices",
            grant.devices.len(),
            policy.max_devices,
        ),
    ] {
        if has > most {
            return deny(
                rule,
                format!(
                    "policy.{} of this node is {most}, and with actor {actor} the pod would have {has} {what}: raise it, or take some out of the template",
                    rule.as_str()
                ),
            );
        }
    }
    Ok(())
}

/// The namespaces of a list of labels.
pub fn namespaces(labels: impl IntoIterator<Item = DnsLabel>) -> Choice<String> {
    Choice::Only(labels.into_iter().map(String::from).collect())
}

#[cfg(test)]
mod tests;
