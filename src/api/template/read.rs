// SPDX-License-Identifier: Apache-2.0
//! The one walk over a template: every rule, every problem with its path.

use std::collections::BTreeMap;

use super::{ACCESS_MODES, API_VERSION, KIND, RECLAIM_POLICIES, Template};
use super::{TemplateContainer, TemplateMount, TemplateVolume};
use crate::{
    api::{
        Problems,
        rule::{self, MAX_MOUNTS, MAX_VOLUMES},
        walk::{Field, check_kind},
    },
    model::{AccessMode, DnsLabel, check_subdomain},
};

const UNSUPPORTED: &str = "is not supported by this version: leave it out";

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
    let containers = containers(&spec.field("containers"), &mut declared, problems);
    refuse_init_mounts(&spec.field("initContainers"), problems);
    for (volume, (path, mounted)) in &declared.0 {
        if !mounted {
            problems.add(
                path,
                format_args!("volume {volume:?} is not mounted by any container"),
            );
        }
    }
    Some(Template {
        name: name?,
        containers,
        volumes,
    })
}

/// The volumes as they are named, well or not: their path, and whether a
/// container mounts them. So one bad name is one problem and not many.
#[derive(Default)]
struct Declared<'n>(BTreeMap<&'n str, (String, bool)>);

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
        if let Some((first, _)) = declared.0.get(text) {
            name.problem(
                problems,
                format_args!("{text:?} is already the name of {first}"),
            );
        } else {
            declared.0.insert(text, (item.path().to_owned(), false));
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
    let access_mode = access_mode(&source.field("accessMode"), problems);
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
    volume_mode(&source.field("volumeMode"), problems);
    let fs_group = source.field("fsGroup");
    if fs_group.is_there() {
        fs_group.problem(problems, UNSUPPORTED);
    }
    let reclaim_policy = source
        .field("reclaimPolicy")
        .word(&RECLAIM_POLICIES, problems);

    Some(TemplateVolume {
        name: label?,
        capacity: capacity?,
        storage_class: storage_class?.to_owned(),
        access_mode,
        fs_type: fs_type_name.to_owned(),
        mount_options,
        reclaim_policy,
    })
}

/// Modes that Kubernetes knows too, but a volume of an actor has one writer.
const LATER_ACCESS_MODES: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];

fn access_mode(field: &Field<'_>, problems: &mut Problems) -> AccessMode {
    let default = AccessMode::SingleNodeSingleWriter;
    if let Some(mode) = field.text_among(&LATER_ACCESS_MODES) {
        field.problem(
            problems,
            format_args!(
                "{mode} is not supported by this version: use ReadWriteOncePod or ReadWriteOnce"
            ),
        );
        return default;
    }
    field.word(&ACCESS_MODES, problems).unwrap_or(default)
}

fn volume_mode(field: &Field<'_>, problems: &mut Problems) {
    if field.text_among(&["Block"]).is_some() {
        field.problem(
            problems,
            "Block is not supported by this version: use Filesystem",
        );
    } else {
        field.word(&[("Filesystem", ())], problems);
    }
}

fn containers<'n>(
    list: &Field<'n>,
    declared: &mut Declared<'n>,
    problems: &mut Problems,
) -> Vec<TemplateContainer> {
    let items = list.items(problems);
    if !list.is_there() {
        list.problem(problems, "is required");
    } else if !list.says_something() {
        list.problem(problems, "must hold at least one container");
    }
    let alone = items.len() == 1;
    let mut names = BTreeMap::new();
    let mut mounts = 0;
    let mut containers = Vec::new();
    for item in &items {
        if !item.must_be_map(problems) {
            continue;
        }
        let name = container_name(item, alone, &mut names, problems);
        let list = item.field("volumeMounts");
        let items = list.items(problems);
        mounts += items.len();
        let mut paths = BTreeMap::new();
        let volume_mounts = items
            .iter()
            .filter_map(|item| mount(item, declared, &mut paths, problems))
            .collect();
        devices(&item.field("volumeDevices"), declared, problems);
        containers.push(TemplateContainer {
            name,
            volume_mounts,
        });
    }
    if mounts > MAX_MOUNTS {
        list.problem(
            problems,
            format_args!("have {mounts} volumeMounts together: at most {MAX_MOUNTS}"),
        );
    }
    containers
}

fn container_name<'n>(
    item: &Field<'n>,
    alone: bool,
    names: &mut BTreeMap<&'n str, String>,
    problems: &mut Problems,
) -> Option<DnsLabel> {
    let name = item.field("name");
    if !name.is_there() {
        if !alone {
            name.problem(
                problems,
                "is required where there is more than one container",
            );
        }
        return None;
    }
    let text = name.text(problems)?;
    if let Some(first) = names.get(text) {
        name.problem(
            problems,
            format_args!("{text:?} is already the name of {first}"),
        );
    } else {
        names.insert(text, item.path().to_owned());
    }
    name.parsed(text, problems)
}

fn mount<'n>(
    item: &Field<'n>,
    declared: &mut Declared<'n>,
    paths: &mut BTreeMap<&'n str, String>,
    problems: &mut Problems,
) -> Option<TemplateMount> {
    if !item.must_be_map(problems) {
        return None;
    }
    item.only(&["name", "mountPath", "readOnly", "subPath"], problems);
    let name = item.field("name");
    let volume = name.required_text(problems);
    if let Some(volume) = volume {
        match declared.0.get_mut(volume) {
            Some((_, mounted)) => *mounted = true,
            None => name.problem(
                problems,
                format_args!("{volume:?} is no volume of spec.volumes"),
            ),
        }
    }
    let path = item.field("mountPath");
    let mount_path = path.required_text(problems);
    if let Some(text) = mount_path {
        if let Err(reason) = rule::check_mount_path(text) {
            path.problem(problems, reason);
        } else if let Some(first) = paths.get(text) {
            path.problem(
                problems,
                format_args!("{text:?} is already used by {first}"),
            );
        } else {
            paths.insert(text, item.path().to_owned());
        }
    }
    let sub_path = item.field("subPath");
    if sub_path.says_something() {
        sub_path.problem(problems, UNSUPPORTED);
    }
    let read_only = item.field("readOnly").flag(problems);
    Some(TemplateMount {
        // A name that is no label was noted where the volume is declared, or
        // names no volume.
        volume: volume?.parse().ok()?,
        mount_path: mount_path?.to_owned(),
        read_only,
    })
}

/// Block devices: parsed, so that a wrong field is found, and refused.
fn devices(list: &Field<'_>, declared: &mut Declared<'_>, problems: &mut Problems) {
    if list.says_something() {
        list.problem(problems, UNSUPPORTED);
    }
    for item in list.items(problems) {
        item.only(&["name", "devicePath"], problems);
        let name = item.field("name").text(problems).unwrap_or_default();
        // That it has no mount is not what is wrong with this volume.
        if let Some((_, mounted)) = declared.0.get_mut(name) {
            *mounted = true;
        }
    }
}

/// An init container ends before the actor runs; its mounts would be lost
/// without a word.
fn refuse_init_mounts(list: &Field<'_>, problems: &mut Problems) {
    for item in list.items(problems) {
        for name in ["volumeMounts", "volumeDevices"] {
            let field = item.field(name);
            if field.says_something() {
                field.problem(problems, UNSUPPORTED);
            }
        }
    }
}
