// SPDX-License-Identifier: Apache-2.0
//! The containers of a template: where they see which volume.

use std::collections::BTreeMap;

use super::{
    TemplateContainer, TemplateDevice, TemplateMount,
    read::{Declared, UNSUPPORTED},
};
use crate::{
    api::{
        Problems,
        rule::{self, MAX_MOUNTS},
        walk::Field,
    },
    model::{DnsLabel, VolumeMode},
};

/// Paths that are taken inside one container, and by which item.
type Taken<'n> = BTreeMap<&'n str, String>;

pub(super) fn read<'n>(
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
    let mut total = 0;
    let mut containers = Vec::new();
    for item in &items {
        if !item.must_be_map(problems) {
            continue;
        }
        let name = container_name(item, alone, &mut names, problems);
        let mounts = item.field("volumeMounts").items(problems);
        let devices = item.field("volumeDevices").items(problems);
        total += mounts.len() + devices.len();
        // One place inside the container shows one thing.
        let mut taken = Taken::new();
        containers.push(TemplateContainer {
            name,
            volume_mounts: mounts
                .iter()
                .filter_map(|item| mount(item, declared, &mut taken, problems))
                .collect(),
            volume_devices: devices
                .iter()
                .filter_map(|item| device(item, declared, &mut taken, problems))
                .collect(),
        });
    }
    if total > MAX_MOUNTS {
        list.problem(
            problems,
            format_args!(
                "have {total} volumeMounts and volumeDevices together: at most {MAX_MOUNTS}"
            ),
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

/// The volume that an item names; `used_as` is the mode that the item is for.
fn volume<'n>(
    item: &Field<'n>,
    used_as: VolumeMode,
    declared: &mut Declared<'n>,
    problems: &mut Problems,
) -> Option<(&'n str, bool)> {
    let name = item.field("name");
    let text = name.required_text(problems)?;
    let Some(volume) = declared.0.get_mut(text) else {
        name.problem(
            problems,
            format_args!("{text:?} is no volume of spec.volumes"),
        );
        return Some((text, false));
    };
    volume.used = true;
    match (used_as, volume.mode) {
        (VolumeMode::Filesystem, VolumeMode::Block) => name.problem(
            problems,
            format_args!("{text:?} is a Block volume: name it in volumeDevices"),
        ),
        (VolumeMode::Block, VolumeMode::Filesystem) => name.problem(
            problems,
            format_args!(
                "{text:?} is a Filesystem volume: name it in volumeMounts, or give it volumeMode Block"
            ),
        ),
        _ => {}
    }
    Some((text, volume.read_only))
}

/// The absolute path in this field, unique in its container.
fn path<'n>(
    field: &Field<'n>,
    item: &Field<'n>,
    taken: &mut Taken<'n>,
    problems: &mut Problems,
) -> Option<&'n str> {
    let text = field.required_text(problems)?;
    if let Err(reason) = rule::check_mount_path(text) {
        field.problem(problems, reason);
    } else if let Some(first) = taken.get(text) {
        field.problem(
            problems,
            format_args!("{text:?} is already used by {first}"),
        );
    } else {
        taken.insert(text, item.path().to_owned());
    }
    Some(text)
}

fn mount<'n>(
    item: &Field<'n>,
    declared: &mut Declared<'n>,
    taken: &mut Taken<'n>,
    problems: &mut Problems,
) -> Option<TemplateMount> {
    if !item.must_be_map(problems) {
        return None;
    }
    item.only(&["name", "mountPath", "readOnly", "subPath"], problems);
    let volume = volume(item, VolumeMode::Filesystem, declared, problems);
    let mount_path = path(&item.field("mountPath"), item, taken, problems);
    let sub_path = item.field("subPath");
    let sub_path = match sub_path.text(problems) {
        // As it is where it is left out: the whole volume.
        None | Some("") => None,
        Some(text) => sub_path.parsed(text, problems),
    };
    let flag = item.field("readOnly");
    let asked = flag.flag(problems);
    let (name, nobody_writes) = volume?;
    if nobody_writes && flag.is_there() && !asked {
        flag.problem(
            problems,
            format_args!("volume {name:?} is ReadOnlyMany: write true, or leave it out"),
        );
    }
    Some(TemplateMount {
        // A name that is no label was noted where the volume is declared, or
        // names no volume.
        volume: name.parse().ok()?,
        mount_path: mount_path?.to_owned(),
        read_only: asked || nobody_writes,
        sub_path,
    })
}

fn device<'n>(
    item: &Field<'n>,
    declared: &mut Declared<'n>,
    taken: &mut Taken<'n>,
    problems: &mut Problems,
) -> Option<TemplateDevice> {
    if !item.must_be_map(problems) {
        return None;
    }
    item.only(&["name", "devicePath"], problems);
    let volume = volume(item, VolumeMode::Block, declared, problems);
    let device_path = path(&item.field("devicePath"), item, taken, problems);
    Some(TemplateDevice {
        volume: volume?.0.parse().ok()?,
        device_path: device_path?.to_owned(),
    })
}

/// An init container ends before the actor runs; its mounts would be lost
/// without a word.
pub(super) fn refuse_init_mounts(list: &Field<'_>, problems: &mut Problems) {
    for item in list.items(problems) {
        for name in ["volumeMounts", "volumeDevices"] {
            let field = item.field(name);
            if field.says_something() {
                field.problem(problems, UNSUPPORTED);
            }
        }
    }
}
