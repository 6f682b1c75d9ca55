// SPDX-License-Identifier: Apache-2.0
//! StorageClass, in the shape of Kubernetes.

mod reserved;
mod topologies;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Problems, rule,
    template::{RECLAIM_POLICIES, word_of},
    tree,
    walk::{Field, check_kind},
};
use crate::model::{DriverName, ReclaimPolicy, SecretRefs, Topology, check_subdomain};

/// The `apiVersion` that we write, and accept.
pub const API_VERSION: &str = "storage.k8s.io/v1";
/// The `kind` that we write, and ask for.
pub const KIND: &str = "StorageClass";

/// Parameters with this prefix are for us, not for the driver.
const RESERVED_PREFIX: &str = "csi.storage.k8s.io/";
/// The file system type of new volumes.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// The same of our own.
const OUR_PREFIX: &str = "actor-volumes.dev/";
/// The SELinux context that volumes are mounted with.
const SELINUX_CONTEXT: &str = "actor-volumes.dev/selinux-mount-context";

const BINDING_MODES: [(&str, VolumeBindingMode); 2] = [
    ("Immediate", VolumeBindingMode::Immediate),
    (
        "WaitForFirstConsumer",
        VolumeBindingMode::WaitForFirstConsumer,
    ),
];

/// How volumes of this class are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageClass {
    /// `metadata.name`, a DNS subdomain.
    pub name: String,
    /// The CSI driver.
    pub provisioner: DriverName,
    /// What CreateVolume is given; reserved keys are taken out.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The parameter `csi.storage.k8s.io/fstype`; empty: the driver's choice.
    #[serde(default)]
    pub fs_type: String,
    /// The parameter `actor-volumes.dev/selinux-mount-context`; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selinux_context: String,
    /// The parameters `csi.storage.k8s.io/<use>-secret-name` and `-namespace`.
    #[serde(default, skip_serializing_if = "SecretRefs::is_empty")]
    pub secret_refs: SecretRefs,
    /// Mount options of every volume.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// What becomes of a volume with its actor, where the template is silent.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
    /// Whether volumes may grow.
    #[serde(default)]
    pub allow_volume_expansion: bool,
    /// When volumes are made.
    #[serde(default)]
    pub volume_binding_mode: VolumeBindingMode,
    /// From where volumes must be reachable, any of these; none: no matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_topologies: Vec<Topology>,
}

/// When a volume is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeBindingMode {
    /// With its actor.
    #[default]
    Immediate,
    /// At the first resume, when the node is known.
    WaitForFirstConsumer,
}

/// Reads a class and finds everything that is wrong with it.
pub fn parse(yaml: &str) -> Result<StorageClass, Problems> {
    let tree = tree::load(yaml)?;
    let mut problems = Problems::default();
    match read(&Field::root(&tree), &mut problems) {
        Some(class) if problems.is_empty() => Ok(class),
        _ => Err(problems),
    }
}

fn read(root: &Field<'_>, problems: &mut Problems) -> Option<StorageClass> {
    if !root.must_be_map(problems) {
        return None;
    }
    check_kind(root, API_VERSION, KIND, problems);
    // A misspelt reclaimPolicy would cost data: nothing is passed over here.
    root.only(
        &[
            "apiVersion",
            "kind",
            "metadata",
            "provisioner",
            "parameters",
            "mountOptions",
            "reclaimPolicy",
            "allowVolumeExpansion",
            "volumeBindingMode",
            "allowedTopologies",
        ],
        problems,
    );
    let metadata = root.field("metadata");
    let name = metadata.field("name");
    let mut name_text = None;
    if metadata.must_be_map(problems) {
        name_text = name.required_text(problems);
        if let Some(Err(error)) = name_text.map(check_subdomain) {
            name.problem(problems, error);
        }
    }
    let provisioner = root.field("provisioner").required(problems);
    let parameters = reserved::read(&root.field("parameters"), problems);
    let options = root.field("mountOptions");
    let mount_options = options.texts(problems);
    if let Err(reason) = rule::check_mount_flags(&mount_options) {
        options.problem(problems, reason);
    }
    if !parameters.selinux_context.is_empty()
        && let Err(reason) = rule::check_no_context(&mount_options)
    {
        options.problem(problems, reason);
    }
    let reclaim_policy = root
        .field("reclaimPolicy")
        .word(&RECLAIM_POLICIES, problems);
    let allow_volume_expansion = root.field("allowVolumeExpansion").flag(problems);
    let binding = root.field("volumeBindingMode");
    let volume_binding_mode = binding.word(&BINDING_MODES, problems);
    let allowed_topologies = topologies::read(&root.field("allowedTopologies"), problems);
    Some(StorageClass {
        name: name_text?.to_owned(),
        provisioner: provisioner?,
        parameters: parameters.for_the_driver,
        fs_type: parameters.fs_type,
        selinux_context: parameters.selinux_context,
        secret_refs: parameters.secret_refs,
        mount_options,
        reclaim_policy: reclaim_policy.unwrap_or_default(),
        allow_volume_expansion,
        volume_binding_mode: volume_binding_mode.unwrap_or_default(),
        allowed_topologies,
    })
}

impl StorageClass {
    /// The class as people write it; reads back as the same class.
    pub fn to_manifest(&self) -> Value {
        let mut value = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "provisioner": self.provisioner,
            "reclaimPolicy": word_of(&RECLAIM_POLICIES, self.reclaim_policy),
            "allowVolumeExpansion": self.allow_volume_expansion,
            "volumeBindingMode": word_of(&BINDING_MODES, self.volume_binding_mode),
        });
        let parameters = reserved::write(self);
        if !parameters.is_empty() {
            value["parameters"] = json!(parameters);
        }
        if !self.mount_options.is_empty() {
            value["mountOptions"] = json!(self.mount_options);
        }
        if !self.allowed_topologies.is_empty() {
            value["allowedTopologies"] = topologies::write(&self.allowed_topologies);
        }
        value
    }
}

#[cfg(test)]
mod tests;
