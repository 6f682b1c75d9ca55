// SPDX-License-Identifier: Apache-2.0
//! A template in the shape in which people write it.

use serde_json::{Value, json};

use super::{
    ACCESS_MODES, API_VERSION, KIND, RECLAIM_POLICIES, Template, TemplateContainer, TemplateMount,
    TemplateVolume, VOLUME_MODES,
};
use crate::model::VolumeMode;

impl Template {
    /// The template as people write it; reads back as the same template.
    pub fn to_manifest(&self) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {
                "containers": self.containers.iter().map(container).collect::<Vec<_>>(),
                "volumes": self.volumes.iter().map(volume).collect::<Vec<_>>(),
            },
        })
    }
}

fn container(container: &TemplateContainer) -> Value {
    let mut value = json!({
        "volumeMounts": container.volume_mounts.iter().map(mount).collect::<Vec<_>>(),
    });
    if !container.volume_devices.is_empty() {
        let devices = container.volume_devices.iter();
        let devices = devices.map(|d| json!({"name": d.volume, "devicePath": d.device_path}));
        value["volumeDevices"] = devices.collect();
    }
    if let Some(name) = &container.name {
        value["name"] = json!(name);
    }
    value
}

fn mount(mount: &TemplateMount) -> Value {
    let mut value = json!({"name": mount.volume, "mountPath": mount.mount_path});
    if mount.read_only {
        value["readOnly"] = json!(true);
    }
    if let Some(sub_path) = &mount.sub_path {
        value["subPath"] = json!(sub_path);
    }
    value
}

fn volume(volume: &TemplateVolume) -> Value {
    let mut value = json!({
        "capacity": volume.capacity,
        "storageClassName": volume.storage_class,
    });
    if let Some(word) = word_of(&ACCESS_MODES, volume.access_mode) {
        value["accessMode"] = json!(word);
    }
    if volume.volume_mode != VolumeMode::default() {
        value["volumeMode"] = json!(word_of(&VOLUME_MODES, volume.volume_mode));
    }
    if let Some(group) = volume.fs_group {
        value["fsGroup"] = json!(group);
    }
    if !volume.fs_type.is_empty() {
        value["fsType"] = json!(volume.fs_type);
    }
    if !volume.selinux_context.is_empty() {
        value["seLinuxMountContext"] = json!(volume.selinux_context);
    }
    if !volume.mount_options.is_empty() {
        value["mountOptions"] = json!(volume.mount_options);
    }
    if let Some(word) = volume
        .reclaim_policy
        .and_then(|policy| word_of(&RECLAIM_POLICIES, policy))
    {
        value["reclaimPolicy"] = json!(word);
    }
    json!({"name": volume.name, "externalVolumeTemplate": value})
}

/// The spelling of a value.
pub(in crate::api) fn word_of<T: Copy + PartialEq>(
    words: &[(&'static str, T)],
    value: T,
) -> Option<&'static str> {
    words
        .iter()
        .find(|(_, v)| *v == value)
        .map(|(word, _)| *word)
}
