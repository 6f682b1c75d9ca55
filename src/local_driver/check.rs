// SPDX-License-Identifier: Apache-2.0
//! Checks of requests. What the driver cannot honour is refused by name, never
//! passed over.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use tonic::Status;

use crate::proto::csi::{
    CapacityRange, VolumeCapability,
    volume_capability::{AccessType, access_mode::Mode},
};

/// The longest name and id (CSI spec, size limits).
const MAX_TEXT: usize = 128;

fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

/// A field that must be there.
pub(super) fn required<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    if value.is_empty() {
        return Err(invalid(format!("{field} is missing")));
    }
    Ok(value)
}

/// A text field that must be there.
pub(super) fn text<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    required(field, value)?;
    if value.len() > MAX_TEXT {
        return Err(invalid(format!("{field} is longer than {MAX_TEXT} bytes")));
    }
    Ok(value)
}

/// A path that must be there. Longer ones than CSI guarantees are taken.
pub(super) fn path(field: &str, value: &str) -> Result<PathBuf, Status> {
    let path = Path::new(required(field, value)?);
    let plain = path.components().all(|c| {
        use std::path::Component::{Normal, RootDir};
        matches!(c, RootDir | Normal(_))
    });
    if !path.is_absolute() || !plain || path.file_name().is_none() {
        return Err(invalid(format!(
            "{field} {value:?} must be an absolute path without '..'"
        )));
    }
    Ok(path.into())
}

/// A capability that this driver can serve; gives its access mode.
pub(super) fn capability(capability: Option<&VolumeCapability>) -> Result<Mode, Status> {
    let capability = capability.ok_or_else(|| invalid("volume_capability is missing"))?;
    let mount = match &capability.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(invalid("a directory can not be shown as a block device"));
        }
        None => return Err(invalid("access_type of volume_capability is missing")),
    };
    if !mount.fs_type.is_empty() {
        return Err(invalid(format!(
            "fs_type {:?} can not be chosen: a directory has the file system that it is in; leave it out",
            mount.fs_type
        )));
    }
    if !mount.mount_flags.is_empty() {
        return Err(invalid(
            "mount_flags can not be given to a bind mount: leave them out",
        ));
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(invalid("volume_mount_group is not supported: leave it out"));
    }
    let mode = capability
        .access_mode
        .as_ref()
        .map_or(Mode::Unknown, |m| m.mode());
    match mode {
        Mode::SingleNodeWriter
        | Mode::SingleNodeReaderOnly
        | Mode::SingleNodeSingleWriter
        | Mode::SingleNodeMultiWriter => Ok(mode),
        Mode::Unknown => Err(invalid("access_mode of volume_capability is missing")),
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            Err(invalid(format!(
                "access mode {}: a directory of one host can not be shown on many",
                mode.as_str_name()
            )))
        }
    }
}

/// All capabilities of a volume; at least one.
pub(super) fn capabilities(all: &[VolumeCapability]) -> Result<(), Status> {
    if all.is_empty() {
        return Err(invalid("volume_capabilities are missing"));
    }
    all.iter()
        .try_for_each(|one| capability(Some(one)).map(drop))
}

/// No parameter is known.
pub(super) fn parameters(given: &HashMap<String, String>) -> Result<(), Status> {
    match given.keys().min() {
        None => Ok(()),
        Some(key) => Err(invalid(format!(
            "unknown parameter {key:?}: this driver has none, remove it from the storage class"
        ))),
    }
}

/// Required and limit, 0 where not given.
pub(super) fn capacity(range: Option<&CapacityRange>) -> Result<(i64, i64), Status> {
    let Some(range) = range else {
        return Ok((0, 0));
    };
    let (required, limit) = (range.required_bytes, range.limit_bytes);
    if required < 0 || limit < 0 || (limit > 0 && limit < required) {
        return Err(invalid(format!(
            "capacity_range is wrong: required_bytes {required}, limit_bytes {limit}"
        )));
    }
    Ok((required, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn mount(mode: Mode) -> VolumeCapability {
        VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    #[test]
    fn one_host_modes_of_a_mounted_volume_are_served() {
        for mode in [
            Mode::SingleNodeWriter,
            Mode::SingleNodeReaderOnly,
            Mode::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter,
        ] {
            assert!(capability(Some(&mount(mode))).ok() == Some(mode));
        }
        for mode in [Mode::Unknown, Mode::MultiNodeMultiWriter] {
            assert!(capability(Some(&mount(mode))).is_err());
        }
    }

    #[test]
    fn what_a_directory_can_not_do_is_refused() {
        let mut block = mount(Mode::SingleNodeWriter);
        block.access_type = Some(AccessType::Block(BlockVolume {}));
        let with = |mount_volume| VolumeCapability {
            access_type: Some(AccessType::Mount(mount_volume)),
            ..mount(Mode::SingleNodeWriter)
        };
        let ext4 = with(MountVolume {
            fs_type: "ext4".into(),
            ..Default::default()
        });
        let flags = with(MountVolume {
            mount_flags: vec!["noatime".into()],
            ..Default::default()
        });
        for bad in [block, ext4, flags, VolumeCapability::default()] {
            assert!(capability(Some(&bad)).is_err());
        }
        assert!(capability(None).is_err());
        assert!(parameters(&[("k".into(), "v".into())].into()).is_err());
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        assert!(path("p", "/a/b").is_ok());
        for bad in ["", "a", "/", "/a/../b", "/a/.."] {
            assert!(path("p", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_capacity_limit_below_what_is_required_is_refused() {
        let range = |required_bytes, limit_bytes| CapacityRange {
            required_bytes,
            limit_bytes,
        };
        assert_eq!(capacity(None).unwrap(), (0, 0));
        assert_eq!(capacity(Some(&range(1, 2))).unwrap(), (1, 2));
        for bad in [range(2, 1), range(-1, 0), range(0, -1)] {
            assert!(capacity(Some(&bad)).is_err());
        }
    }
}
