// SPDX-License-Identifier: Apache-2.0
//! ActorTemplate: which volumes an actor has and where its containers see them.
//!
//! A template belongs to the actor platform: what is not about volumes (images,
//! env, resources, probes…) is passed over. What is about volumes is read
//! strictly.

mod change;
mod containers;
mod manifest;
mod read;

pub(super) use manifest::word_of;

use serde::{Deserialize, Serialize};

use super::{Problems, quantity::Quantity, tree, walk::Field};
use crate::{
    error::{Error, Result},
    model::{AccessMode, DnsLabel, GrantDevice, GrantMount, ReclaimPolicy, SubPath, VolumeMode},
};

/// The `apiVersion` that we write, and accept.
pub const API_VERSION: &str = "actor-volumes.dev/v1alpha1";
/// The `kind` that we write, and ask for.
pub const KIND: &str = "ActorTemplate";

/// The spelling of the access modes.
const ACCESS_MODES: [(&str, AccessMode); 4] = [
    ("ReadWriteOncePod", AccessMode::SingleNodeSingleWriter),
    ("ReadWriteOnce", AccessMode::SingleNodeWriter),
    ("ReadOnlyMany", AccessMode::MultiNodeReaderOnly),
    ("ReadWriteMany", AccessMode::MultiNodeMultiWriter),
];
/// The spelling of the volume modes.
const VOLUME_MODES: [(&str, VolumeMode); 2] = [
    ("Filesystem", VolumeMode::Filesystem),
    ("Block", VolumeMode::Block),
];
/// The spelling of the reclaim policies.
pub(super) const RECLAIM_POLICIES: [(&str, ReclaimPolicy); 2] = [
    ("Delete", ReclaimPolicy::Delete),
    ("Retain", ReclaimPolicy::Retain),
];

/// What a template says about volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// `metadata.name`.
    pub name: DnsLabel,
    /// The containers, in the order of the template.
    pub containers: Vec<TemplateContainer>,
    /// The volumes, in the order of the template.
    pub volumes: Vec<TemplateVolume>,
}

/// A container of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateContainer {
    /// Its name; may be missing where it is the only container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DnsLabel>,
    /// Where it sees which volume.
    #[serde(default)]
    pub volume_mounts: Vec<TemplateMount>,
    /// Where it sees which raw block volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_devices: Vec<TemplateDevice>,
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateMount {
    /// The volume, by name.
    pub volume: DnsLabel,
    /// The absolute path inside the container.
    pub mount_path: String,
    /// Whether writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// The directory of the volume that is mounted; none: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<SubPath>,
}

/// A raw block device of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateDevice {
    /// The volume, by name.
    pub volume: DnsLabel,
    /// The absolute path of the device node inside the container.
    pub device_path: String,
}

/// A volume that every actor of the template gets one of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateVolume {
    /// Its name in the template.
    pub name: DnsLabel,
    /// The least size.
    pub capacity: Quantity,
    /// The StorageClass, by name.
    pub storage_class: String,
    /// The CSI access mode.
    pub access_mode: AccessMode,
    /// File system or raw block device.
    #[serde(default)]
    pub volume_mode: VolumeMode,
    /// The group that owns its files; none: as the driver leaves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<u32>,
    /// The file system type; empty: that of the class, or the driver's choice.
    #[serde(default)]
    pub fs_type: String,
    /// The SELinux context that it is mounted with; empty: that of the class.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selinux_context: String,
    /// Mount options besides those of the class.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// What becomes of it with its actor; none: what the class says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_policy: Option<ReclaimPolicy>,
}

/// Reads a template and finds everything that is wrong with it.
pub fn parse(yaml: &str) -> Result<Template, Problems> {
    let tree = tree::load(yaml)?;
    let mut problems = Problems::default();
    match read::template(&Field::root(&tree), &mut problems) {
        Some(template) if problems.is_empty() => Ok(template),
        _ => Err(problems),
    }
}

impl Template {
    /// The mounts of a grant. The mounts of a container without a name go to
    /// the container that is named at resume, or to every container.
    pub fn mounts(&self, named_at_resume: Option<&DnsLabel>) -> Result<Vec<GrantMount>> {
        self.check_name(named_at_resume)?;
        Ok(self
            .containers
            .iter()
            .flat_map(|container| {
                let name = container.name.as_ref().or(named_at_resume);
                container.volume_mounts.iter().map(move |mount| GrantMount {
                    container: name.cloned(),
                    volume: mount.volume.clone(),
                    mount_path: mount.mount_path.clone(),
                    read_only: mount.read_only,
                    sub_path: mount.sub_path.clone(),
                })
            })
            .collect())
    }

    /// The block devices of a grant, for the same containers as the mounts.
    pub fn devices(&self, named_at_resume: Option<&DnsLabel>) -> Result<Vec<GrantDevice>> {
        self.check_name(named_at_resume)?;
        Ok(self
            .containers
            .iter()
            .flat_map(|container| {
                let name = container.name.as_ref().or(named_at_resume);
                let devices = container.volume_devices.iter();
                devices.map(move |device| GrantDevice {
                    container: name.cloned(),
                    volume: device.volume.clone(),
                    device_path: device.device_path.clone(),
                })
            })
            .collect())
    }

    /// Whether a container of that name may be named at resume.
    fn check_name(&self, named_at_resume: Option<&DnsLabel>) -> Result<()> {
        let names: Vec<&DnsLabel> = self
            .containers
            .iter()
            .filter_map(|c| c.name.as_ref())
            .collect();
        if let Some(name) = named_at_resume
            && !names.is_empty()
            && !names.contains(&name)
        {
            let known: Vec<_> = names.iter().map(|n| n.as_str()).collect();
            return Err(Error::invalid(format!(
                "template {} has no container {name}: name one of {}, or none",
                self.name,
                known.join(", ")
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
