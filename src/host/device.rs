// SPDX-License-Identifier: Apache-2.0
//! Block devices, and who uses them.

use std::{
    collections::HashSet,
    fmt, io,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags};
use serde::{Deserialize, Serialize};

use super::{
    holders::{self, Holder, Query, gone, in_control_group},
    mountinfo::Identity,
};

/// The number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Of its driver in the kernel.
    pub major: u32,
    /// Among those of the driver.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The block device at exactly this path; none: something else is there.
pub fn at(path: &Path) -> io::Result<Option<Device>> {
    Ok(block(&stat(path, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// Who uses the device: a process that has it open or has its file system
/// mounted, or any process of one of the containers, to which it was shown.
///
/// `passed_over` are processes that do not count: the driver's own.
pub fn holder(
    device: Device,
    passed_over: &[u32],
    containers: &[String],
) -> io::Result<Option<Holder>> {
    let file_system = Identity {
        device: device.to_string(),
        root: PathBuf::from("/"),
    };
    let mounted = Query {
        volume: file_system,
        known: Vec::new(),
        passed_over: passed_over.into(),
        containers: containers.into(),
    };
    if let Some(holder) = holders::find(&[mounted])?.pop().flatten() {
        return Ok(Some(holder));
    }
    let passed_over: HashSet<u32> = passed_over.iter().copied().collect();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let why = match in_control_group(pid, containers) {
            Ok(true) => Some("is of the scope"),
            Ok(false) if passed_over.contains(&pid) => None,
            Ok(false) => match has_open(pid, device) {
                Ok(open) => open.then_some("has the device open"),
                // It may not be looked at, and is of no container of the scope.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
                Err(e) if gone(&e) => None,
                Err(e) => return Err(e),
            },
            Err(e) if gone(&e) => None,
            Err(e) => return Err(e),
        };
        if let Some(why) = why {
            return Ok(Some(holders::of(pid, why.into())));
        }
    }
    Ok(None)
}

fn has_open(pid: u32, device: Device) -> io::Result<bool> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // The link leads to the open file itself; it is not entered.
        match stat(&entry?.path(), AtFlags::empty()) {
            Ok(found) if block(&found) == Some(device) => return Ok(true),
            Ok(_) => {}
            // It was closed meanwhile, or is a file of a dead file system.
            Err(_) => {}
        }
    }
    Ok(false)
}

fn stat(path: &Path, flags: AtFlags) -> io::Result<Statx> {
    let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE)?)
}

fn block(found: &Statx) -> Option<Device> {
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    (kind == FileType::BlockDevice).then_some(Device {
        major: found.stx_rdev_major,
        minor: found.stx_rdev_minor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_character_device_are_no_block_device() {
        assert_eq!(at(Path::new("/dev/null")).unwrap(), None);
        assert_eq!(at(Path::new("/proc/self/status")).unwrap(), None);
        assert!(at(Path::new("/no/such/device")).is_err());
    }

    #[test]
    fn a_device_that_is_not_there_is_used_by_nobody_but_the_containers() {
        let device = Device {
            major: 4095,
            minor: 1_048_575,
        };
        assert_eq!(holder(device, &[], &[]).unwrap(), None);
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        // The last name of a path; of the root it is empty.
        let own = groups.trim_end().rsplit('/').next().unwrap();
        let own = own.trim_end_matches(".scope").to_owned();
        let found = holder(device, &[], &[own]).unwrap().unwrap();
        assert!(found.to_string().contains("of the scope"), "{found}");
    }
}
