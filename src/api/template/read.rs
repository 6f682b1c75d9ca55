// SPDX-License-Identifier: Apache-2.0
//! The one walk over a template: every rule, every problem with its path.

use std::collections::BTreeMap;

use super::{
    ACCESS_MODES, API_VERSION, KIND, RECLAIM_POLICIES, Template, TemplateVolume, VOLUME_MODES,
    containers,
};
use crate::{
    api::{
        Problems,
        rule::{self, MAX_GROUP, MAX_VOLUMES},
        walk::{Field, check_kind},
    },
    model::{AccessMode, VolumeMode, check_subdomain},
};

pub(super) const UNSUPPORTED: &str = "is not supported by this version: leave it out";

/// The template, if it can be made; it is good only if no problem was noted.
pub(super) fn template(root: &Field<'_>, problems: &mut Problems) -> Option<Template> {
    if !root.must_be_map(problems) {
        return None;
    }
    check_kind(root, API_VERSION, KIND, problems);
    let metadata = root.field("metadata");
    let name = if metadata.must_be_map(problems) {
        metadata.field("name").required(problems)
    } else {
        None
    };

    let spec = root.field("spec");
    if !spec.must_be_map(problems) {
        return None;
    }
    let mut declared = Declared::default();
    let volumes = volumes(&spec.field("volumes"), &mut declared, problems);
    let containers = containers::read(&spec.field("containers"), &mut declared, problems);
    containers::refuse_init_mounts(&spec.field("initContainers"), problems);
    for (name, volume) in declared.0.iter().filter(|(_, v)| !v.used) {
        let what = match volume.mode {
            VolumeMode::Filesystem => "is not mounted by any container",
            VolumeMode::Block => "is no device of any container: name it in volumeDevices",
        };
        problems.add(&volume.path, format_args!("volume {name:?} {what}"));
    }
    Some(Template {
        name: name?,
        containers,
        volumes,
    })
}

/// The volumes as they are named, well or not. So one bad name is one problem
/// and not many.
#[derive(Default)]
pub(super) struct Declared<'n>(pub(super) BTreeMap<&'n str, DeclaredVolume>);

/// What the containers need to know of a volume.
#[derive(Default)]
pub(super) struct DeclaredVolume {
    /// Where it is declared.
    path: String,
    /// Whether a container uses it.
    pub(super) used: bool,
    pub(super) mode: VolumeMode,
    /// Whether nobody may write to it.
    pub(super) read_only: bool,
}

fn volumes<'n>(
    list: &Field<'n>,
    declared: &mut Declared<'n>,
    problems: &mut Problems,
) -> Vec<TemplateVolume> {
    let items = list.items(problems);
    if !list.says_something() {
        list.problem(
            problems,
            "must declare at least one volume: without one there is nothing to provide",
        );
    }
    if items.len() > MAX_VOLUMES {
        list.problem(
            problems,
            format_args!("has {} volumes: at most {MAX_VOLUMES}", items.len()),
        );
    }
    items
        .iter()
        .filter_map(|item| volume(item, declared, problems))
        .collect()
}

fn volume<'n>(
    item: &Field<'n>,
    declared: &mut Declared<'n>,
    problems: &mut Problems,
) -> Option<TemplateVolume> {
    if !item.must_be_map(problems) {
        return None;
    }
    item.only(&["name", "externalVolumeTemplate"], problems);
    let name = item.field("name");
    let text = name.required_text(problems);
    let label = text.and_then(|text| name.parsed(text, problems));
    if let Some(text) = text {
        if let Some(first) = declared.0.get(text) {
            name.problem(
                problems,
                format_args!("{text:?} is already the name of {}", first.path),
            );
        } else {
            let volume = DeclaredVolume {
                path: item.path().to_owned(),
                ..DeclaredVolume::default()
            };
            declared.0.insert(text, volume);
        }
    }

    let source = item.field("externalVolumeTemplate");
    if !source.is_there() {
        source.problem(
            problems,
            "is required: actor-volumes provides no other kind of volume",
        );
        return None;
    }
    if !source.must_be_map(problems) {
        return None;
    }
    source.only(
        &[
            "capacity",
            "storageClassName",
            "accessMode",
            "fsType",
            "mountOptions",
            "seLinuxMountContext",
            "volumeMode",
            "fsGroup",
            "reclaimPolicy",
        ],
        problems,
    );
    let capacity = source.field("capacity");
    let capacity = capacity
        .required_text_or_number(problems)
        .and_then(|text| capacity.parsed(text, problems));
    let class = source.field("storageClassName");
    let storage_class = class.required_text(problems);
    if let Some(Err(error)) = storage_class.map(check_subdomain) {
        class.problem(problems, error);
    }
    let access = source.field("accessMode");
    let access_mode = access
        .word(&ACCESS_MODES, problems)
        .unwrap_or(AccessMode::SingleNodeSingleWriter);
    let fs_type = source.field("fsType");
    let fs_type_name = fs_type.text(problems).unwrap_or_default();
    if let Err(reason) = rule::check_fs_type(fs_type_name) {
        fs_type.problem(problems, reason);
    }
    let options = source.field("mountOptions");
    let mount_options = options.texts(problems);
    if let Err(reason) = rule::check_mount_flags(&mount_options) {
        options.problem(problems, reason);
    }
    let context = source.field("seLinuxMountContext");
    let selinux_context = context.text(problems).unwrap_or_default();
    if !selinux_context.is_empty() {
        if let Err(reason) = rule::check_selinux_context(selinux_context) {
            context.problem(problems, reason);
        }
        if let Err(reason) = rule::check_no_context(&mount_options) {
            options.problem(problems, reason);
        }
    }
    let volume_mode = source
        .field("volumeMode")
        .word(&VOLUME_MODES, problems)
        .unwrap_or_default();
    let fs_group = fs_group(&source.field("fsGroup"), problems);
    if volume_mode == VolumeMode::Block {
        for field in [&fs_type, &options, &context, &source.field("fsGroup")] {
            if field.says_something() {
                field.problem(
                    problems,
                    "is of file systems: a Block volume has none, leave it out",
                );
            }
        }
        if access_mode == AccessMode::MultiNodeReaderOnly {
            access.problem(
                problems,
                "ReadOnlyMany is not supported for a Block volume: a device is shown writable; use another mode",
            );
        }
    }
    if let Some(volume) = text.and_then(|text| declared.0.get_mut(text)) {
        volume.mode = volume_mode;
        volume.read_only = access_mode == AccessMode::MultiNodeReaderOnly;
    }
    let reclaim_policy = source
        .field("reclaimPolicy")
        .word(&RECLAIM_POLICIES, problems);

    Some(TemplateVolume {
        name: label?,
        capacity: capacity?,
        storage_class: storage_class?.to_owned(),
        access_mode,
        volume_mode,
        fs_group,
        fs_type: fs_type_name.to_owned(),
        selinux_context: selinux_context.to_owned(),
        mount_options,
        reclaim_policy,
    })
}

fn fs_group(field: &Field<'_>, problems: &mut Problems) -> Option<u32> {
    let text = field.number(problems)?;
    let group = text.parse().ok().filter(|g| (1..=MAX_GROUP).contains(g));
    if group.is_none() {
        field.problem(
            problems,
            format_args!("{text} is not a group id: use a whole number from 1 to {MAX_GROUP}"),
        );
    }
    group
}
