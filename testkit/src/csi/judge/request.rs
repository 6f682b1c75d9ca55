// SPDX-License-Identifier: Apache-2.0
//! Rules about a request alone: sizes, paths, capabilities, secrets.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Component, Path},
};

use actor_volumes::{
    host::mount,
    proto::csi::{
        self as wire,
        volume_capability::{AccessType, access_mode::Mode},
    },
};
use prost::Message;

use super::{At, Broken, Judgement, offered, required, rule};
use crate::csi::Options;

/// What CSI promises for a string, and for a path.
const STRING: usize = 128;
/// What CSI promises for a map or the list of mount flags.
const MAP: usize = 4096;
/// Values shorter than this may be met anywhere.
const SECRET: usize = 4;

pub(super) fn short(about: &str, field: &str, text: &str) -> Judgement {
    rule(text.len() <= STRING, || {
        format!("{about}: {field} of {} bytes", text.len())
    })
}

pub(super) fn small(about: &str, field: &str, map: &HashMap<String, String>) -> Judgement {
    let size: usize = map.iter().map(|(k, v)| k.len() + v.len()).sum();
    rule(size <= MAP, || format!("{about}: {field} of {size} bytes"))
}

/// A path that a driver must accept, and that is not made of the volume's id.
pub(super) fn path(about: &str, id: &str, path: &str) -> Judgement {
    required(!path.is_empty(), about, "path")?;
    short(about, "a path", path)?;
    let plain = Path::new(path).is_absolute()
        && Path::new(path)
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    rule(plain, || format!("{about}: a path that is not absolute"))?;
    let last = id.rsplit('/').next().unwrap_or(id);
    let named =
        !id.is_empty() && (path.contains(id) || path.split('/').any(|component| component == last));
    rule(!named, || {
        format!("{about}: the volume's id is a part of a path")
    })
}

/// Whether there is a directory. What is mounted on it may be dead or frozen, and
/// is not asked.
pub(super) fn is_directory(path: &Path) -> bool {
    match mount::is_mount_point(path) {
        Ok(true) => true,
        Ok(false) => path.is_dir(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// The parts of a capability, all of them set and offered; its mode.
pub(super) fn capability(
    at: &At<'_>,
    about: &str,
    capability: Option<&wire::VolumeCapability>,
) -> Result<Mode, Broken> {
    let options = at.options;
    required(capability.is_some(), about, "volume_capability")?;
    let capability = capability.cloned().unwrap_or_default();
    required(capability.access_type.is_some(), about, "access_type")?;
    if let Some(AccessType::Mount(mount)) = &capability.access_type {
        short(about, "fs_type", &mount.fs_type)?;
        short(about, "volume_mount_group", &mount.volume_mount_group)?;
        let flags: usize = mount.mount_flags.iter().map(String::len).sum();
        rule(flags <= MAP, || {
            format!("{about}: mount_flags of {flags} bytes")
        })?;
        let group = mount.volume_mount_group.is_empty() || options.mount_group;
        offered(group, about, "VOLUME_MOUNT_GROUP")?;
    }
    let mode = mode_of(&capability);
    let both = options.controller_single_node_modes && options.node_single_node_modes;
    let known = match mode {
        Mode::Unknown => false,
        Mode::SingleNodeSingleWriter | Mode::SingleNodeMultiWriter => both,
        _ => true,
    };
    rule(known, || {
        format!(
            "{about}: access mode {} was not advertised",
            mode.as_str_name()
        )
    })?;
    Ok(mode)
}

pub(super) fn mode_of(capability: &wire::VolumeCapability) -> Mode {
    let mode = capability.access_mode.as_ref();
    mode.map_or(Mode::Unknown, |m| m.mode())
}

/// Whether several nodes may have the volume at once.
pub(super) fn many_nodes(mode: Mode) -> bool {
    matches!(
        mode,
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
    )
}

/// The size that is asked for.
pub(super) fn range(about: &str, range: Option<&wire::CapacityRange>) -> Judgement {
    let Some(range) = range else { return Ok(()) };
    let (low, high) = (range.required_bytes, range.limit_bytes);
    rule(low >= 0 && high >= 0 && (low > 0 || high > 0), || {
        format!("{about}: a capacity_range without a size")
    })?;
    rule(high == 0 || low <= high, || {
        format!("{about}: a capacity_range that nothing fits")
    })
}

/// A request whose secrets can be told apart from the rest of it.
pub(super) trait Secretive: Message + Clone {
    /// The field, if this request has one.
    fn secrets(&mut self) -> Option<&mut HashMap<String, String>>;
}

/// Secrets are where they belong, and nowhere else.
pub(super) fn secrets(
    options: &Options,
    about: &str,
    request: &impl Secretive,
    expected: &BTreeMap<String, String>,
) -> Judgement {
    let mut rest = request.clone();
    let given = rest.secrets().map(std::mem::take).unwrap_or_default();
    small(about, "secrets", &given)?;
    rule(given == expected.clone().into_iter().collect(), || {
        format!("{about}: secrets other than those that belong here")
    })?;
    let rest = rest.encode_to_vec();
    let mut values = options.secrets.values().filter(|v| v.len() >= SECRET);
    let leak = values.any(|v| rest.windows(v.len()).any(|w| w == v.as_bytes()));
    rule(!leak, || {
        format!("{about}: the value of a secret in another field")
    })
}

macro_rules! secretive {
    ($($request:ident $(. $field:ident)?),* $(,)?) => {$(
        impl Secretive for wire::$request {
            fn secrets(&mut self) -> Option<&mut HashMap<String, String>> {
                secretive!(@ self $(. $field)?)
            }
        }
    )*};
    (@ $self:ident . $field:ident) => { Some(&mut $self.$field) };
    (@ $self:ident) => { None };
}

secretive!(
    CreateVolumeRequest.secrets,
    DeleteVolumeRequest.secrets,
    ControllerPublishVolumeRequest.secrets,
    ControllerUnpublishVolumeRequest.secrets,
    ValidateVolumeCapabilitiesRequest.secrets,
    ControllerExpandVolumeRequest.secrets,
    ListVolumesRequest,
    NodeStageVolumeRequest.secrets,
    NodeUnstageVolumeRequest,
    NodePublishVolumeRequest.secrets,
    NodeUnpublishVolumeRequest,
    NodeGetVolumeStatsRequest,
    NodeExpandVolumeRequest.secrets,
);
