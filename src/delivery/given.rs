// SPDX-License-Identifier: Apache-2.0
//! Whether a container's OCI spec has what the container must have. Pure.
//!
//! The runtime makes mounts in the order of the spec, one on top of another, so
//! that a later one at or above a place hides it, and any one below it is made
//! inside the volume.

use std::path::PathBuf;

use super::{DeviceNeed, Flags, MountNeed, Needs, applying, clash, devices_for};
use crate::{
    error::{Error, Result},
    model::{Grant, GrantVolume, SubPath, clean_path},
};

/// What of a container's OCI spec has to do with volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// In the order in which they are made.
    pub mounts: Vec<SpecMount>,
    /// Device nodes.
    pub devices: Vec<SpecDevice>,
}

/// A mount of the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecMount {
    /// The path inside the container.
    pub destination: String,
    /// The path on the host.
    pub source: PathBuf,
    /// The type, such as `bind` or `tmpfs`; may be empty.
    pub kind: String,
    /// As mount(8) has them, and some of the runtime's own.
    pub options: Vec<String>,
}

/// A device of the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecDevice {
    /// The path inside the container.
    pub path: String,
    /// `b` for a block device.
    pub kind: String,
    /// The device's numbers.
    pub major: i64,
    /// The device's numbers.
    pub minor: i64,
}

impl SpecMount {
    fn is_bind(&self) -> bool {
        self.kind == "bind" || self.options.iter().any(|o| o == "bind" || o == "rbind")
    }

    /// Whether the mount has this option, and none after it that takes it back.
    fn keeps(&self, option: &str, reverse: &str) -> bool {
        let words = self.options.iter().map(String::as_str);
        let last = words.rev().find(|o| *o == option || *o == reverse);
        last == Some(option)
    }

    /// The last word counts.
    fn is_read_only(&self) -> bool {
        let words = self.options.iter().map(String::as_str);
        let last = words
            .rev()
            .find(|o| matches!(*o, "ro" | "rro" | "rw" | "rrw"));
        matches!(last, Some("ro" | "rro"))
    }
}

/// Checks that something is mounted or shown at every place that the grant has
/// for a container of this name. A look at the spec alone: whether it is the
/// right thing [`check_given`] tells.
pub fn check_present(grant: &Grant, container: &str, spec: &Spec) -> Result<()> {
    for mount in applying(grant, container) {
        let path = clean_path(&mount.mount_path);
        if !spec
            .mounts
            .iter()
            .any(|m| clean_path(&m.destination) == path)
        {
            return Err(missing(&mount.mount_path));
        }
    }
    for device in devices_for(grant, container) {
        let path = clean_path(&device.device_path);
        if !spec.devices.iter().any(|d| clean_path(&d.path) == path) {
            return Err(missing(&device.device_path));
        }
    }
    Ok(())
}

/// Checks that the spec has all that the container must have, each visible and
/// as it must be.
pub fn check_given(needs: &Needs, spec: &Spec) -> Result<()> {
    check_there(needs, spec)?;
    needs.mounts.iter().try_for_each(|need| {
        let path = clean_path(&need.destination);
        let mut there = spec.mounts.iter();
        let found = there.find(|m| clean_path(&m.destination) == path);
        let found = found.ok_or_else(|| missing(&need.destination))?;
        check_flags(need, found)
    })
}

/// The same, but for the flags of the mounts: earlier versions gave none.
fn check_there(needs: &Needs, spec: &Spec) -> Result<()> {
    let ours = needs
        .mounts
        .iter()
        .map(|need| find_mount(need, spec))
        .collect::<Result<Vec<usize>>>()?;
    for (need, index) in needs.mounts.iter().zip(&ours) {
        check_visible(need, *index, &ours, spec)?;
    }
    needs
        .devices
        .iter()
        .try_for_each(|need| check_device(need, spec))
}

/// Checks that the spec has the mounts of a container of this name as they would be
/// where `at` says that its volumes, or directories of them, are, and something at the place of each device.
pub fn check_shown(
    grant: &Grant,
    container: &str,
    at: impl Fn(&GrantVolume, Option<&SubPath>) -> PathBuf,
    spec: &Spec,
) -> Result<()> {
    check_present(grant, container, spec)?;
    let mut mounts = Vec::new();
    for mount in applying(grant, container) {
        let volume = grant.volumes.iter().find(|v| v.name == mount.volume);
        let volume = volume.ok_or_else(|| missing(&mount.mount_path))?;
        mounts.push(MountNeed {
            volume: mount.volume.to_string(),
            destination: mount.mount_path.clone(),
            source: at(volume, mount.sub_path.as_ref()),
            read_only: mount.read_only || volume.access_mode.is_read_only(),
            flags: Flags::default(),
        });
    }
    let needs = Needs {
        mounts,
        devices: Vec::new(),
    };
    check_there(&needs, spec)
}

fn check_flags(need: &MountNeed, found: &SpecMount) -> Result<()> {
    let flags = [
        (true, "nosuid", "suid"),
        (true, "nodev", "dev"),
        (need.flags.no_exec, "noexec", "exec"),
    ];
    let lacking = flags
        .into_iter()
        .find(|(wanted, flag, reverse)| *wanted && !found.keeps(flag, reverse));
    match lacking {
        None => Ok(()),
        Some((_, flag, _)) => Err(wrong(
            &need.destination,
            &format!("it must be mounted {flag}, and is not"),
        )),
    }
}

/// The one mount at the destination.
fn find_mount(need: &MountNeed, spec: &Spec) -> Result<usize> {
    let path = clean_path(&need.destination);
    let mut there = (0..)
        .zip(&spec.mounts)
        .filter(|(_, m)| clean_path(&m.destination) == path);
    let Some((index, found)) = there.next() else {
        return Err(missing(&need.destination));
    };
    if there.next().is_some() {
        return Err(wrong(&need.destination, "more than one mount is there"));
    }
    if !found.is_bind() || found.source != need.source {
        return Err(wrong(
            &need.destination,
            &format!(
                "{} is mounted there, and not this volume as it is published for this container",
                found.source.display()
            ),
        ));
    }
    match (need.read_only, found.is_read_only()) {
        (true, false) => Err(wrong(
            &need.destination,
            "it must be read-only, and can be written to",
        )),
        (false, true) => Err(wrong(
            &need.destination,
            "it must be writable, and is read-only",
        )),
        _ => Ok(index),
    }
}

fn check_visible(need: &MountNeed, index: usize, ours: &[usize], spec: &Spec) -> Result<()> {
    let path = clean_path(&need.destination);
    for (at, other) in (0..).zip(&spec.mounts).filter(|(at, _)| *at != index) {
        let there = clean_path(&other.destination);
        let inside = there.starts_with(&path) && !ours.contains(&at);
        let over = path.starts_with(&there) && at > index;
        if inside || over {
            return Err(wrong(
                &need.destination,
                &format!("the mount at {} is in its way", other.destination),
            ));
        }
    }
    Ok(())
}

fn check_device(need: &DeviceNeed, spec: &Spec) -> Result<()> {
    let path = clean_path(&need.path);
    let mut there = spec.devices.iter().filter(|d| clean_path(&d.path) == path);
    let Some(found) = there.next() else {
        return Err(missing(&need.path));
    };
    let numbers = (i64::from(need.major), i64::from(need.minor));
    let right = found.kind == "b" && (found.major, found.minor) == numbers;
    if !right || there.next().is_some() {
        return Err(wrong(
            &need.path,
            "another device is there than this volume's",
        ));
    }
    let mut mounts = spec.mounts.iter();
    match mounts.find(|m| clash(&path, &clean_path(&m.destination))) {
        Some(mount) => Err(wrong(
            &need.path,
            &format!("the mount at {} is in its way", mount.destination),
        )),
        None => Ok(()),
    }
}

fn missing(place: &str) -> Error {
    Error::unavailable(format!(
        "the volume for {place} was not given to it: the NRI plugin was not there, or answered too late; retry"
    ))
}

fn wrong(place: &str, what: &str) -> Error {
    Error::precondition(format!("the volume for {place}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(destination: &str, read_only: bool) -> MountNeed {
        MountNeed {
            volume: "vol1".into(),
            destination: destination.into(),
            source: format!("/m{destination}").into(),
            read_only,
            flags: Flags::default(),
        }
    }

    fn mount(destination: &str, source: &str, options: &[&str]) -> SpecMount {
        SpecMount {
            destination: destination.into(),
            source: source.into(),
            kind: "bind".into(),
            options: ["nosuid", "nodev"]
                .iter()
                .chain(options)
                .map(|o| (*o).to_owned())
                .collect(),
        }
    }

    fn needs(mounts: Vec<MountNeed>) -> Needs {
        Needs {
            mounts,
            devices: Vec::new(),
        }
    }

    fn with(mounts: Vec<SpecMount>) -> Spec {
        Spec {
            mounts,
            devices: Vec::new(),
        }
    }

    fn refused(needs: &Needs, mounts: Vec<SpecMount>) -> String {
        let error = check_given(needs, &with(mounts)).unwrap_err();
        error.full_message()
    }

    #[test]
    fn what_the_plugin_gives_is_what_is_found() {
        let mut all = needs(vec![need("/a", false), need("/a/b", true)]);
        all.devices.push(DeviceNeed {
            path: "/dev/xvda".into(),
            major: 7,
            minor: 1,
            read_only: false,
        });
        let mut spec = with(vec![mount("/proc", "proc", &[]), mount("/", "/x", &["rw"])]);
        for need in &all.mounts {
            let options = super::super::options(need);
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let source = need.source.to_str().unwrap();
            spec.mounts.push(mount(&need.destination, source, &options));
        }
        spec.mounts.push(mount("/dev", "tmpfs", &[]));
        spec.devices.push(SpecDevice {
            path: "/dev/xvda".into(),
            kind: "b".into(),
            major: 7,
            minor: 1,
        });
        check_given(&all, &spec).unwrap();
        for change in [
            (|s: &mut Spec| drop(s.devices.pop())) as fn(&mut Spec),
            |s| s.devices[0].minor = 2,
            |s| s.devices[0].kind = "c".into(),
            |s| s.mounts.push(mount("/dev/xvda", "/x", &[])),
            |s| drop(s.mounts.remove(2)),
        ] {
            let mut changed = spec.clone();
            change(&mut changed);
            assert!(check_given(&all, &changed).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn a_mount_that_lacks_a_flag_is_refused_in_a_new_container_alone() {
        let mut needs = needs(vec![need("/a", false)]);
        for taken_back in ["suid", "dev"] {
            let text = refused(&needs, vec![mount("/a", "/m/a", &[taken_back])]);
            assert!(text.contains(&format!("mounted no{taken_back}")), "{text}");
            let of_before = with(vec![mount("/a", "/m/a", &[taken_back])]);
            check_there(&needs, &of_before).unwrap();
        }
        needs.mounts[0].flags.no_exec = true;
        let text = refused(&needs, vec![mount("/a", "/m/a", &["noexec", "exec"])]);
        assert!(text.contains("mounted noexec"), "{text}");
        check_given(&needs, &with(vec![mount("/a", "/m/a", &["noexec"])])).unwrap();
    }

    #[test]
    fn another_source_or_none_is_refused() {
        let needs = needs(vec![need("/a", false)]);
        assert!(refused(&needs, vec![]).contains("was not given"));
        let other = vec![mount("/a", "/m/other", &["rw"])];
        assert!(refused(&needs, other).contains("/m/other is mounted there"));
        let mut tmpfs = mount("/a", "/m/a", &["rw"]);
        tmpfs.kind = "tmpfs".into();
        assert!(refused(&needs, vec![tmpfs]).contains("not this volume"));
        let twice = vec![mount("/a", "/m/a", &[]), mount("/a/", "/m/a", &[])];
        assert!(refused(&needs, twice).contains("more than one"));
    }

    #[test]
    fn read_only_is_what_the_last_option_says() {
        let reader = needs(vec![need("/a", true)]);
        for options in [&["rbind"][..], &["rw"], &["ro", "rw"]] {
            let text = refused(&reader, vec![mount("/a", "/m/a", options)]);
            assert!(text.contains("must be read-only"), "{options:?}: {text}");
        }
        check_given(&reader, &with(vec![mount("/a", "/m/a", &["rw", "ro"])])).unwrap();
        let writer = needs(vec![need("/a", false)]);
        let text = refused(&writer, vec![mount("/a", "/m/a", &["ro"])]);
        assert!(text.contains("must be writable"), "{text}");
    }

    #[test]
    fn a_mount_below_or_later_above_is_in_the_way() {
        let needs = needs(vec![need("/a/b", false)]);
        let ours = || mount("/a/b", "/m/a/b", &["rw"]);
        let below = vec![mount("/a/b/c", "/x", &[]), ours()];
        assert!(refused(&needs, below).contains("/a/b/c is in its way"));
        for above in ["/a", "/", "/x/../a"] {
            let over = vec![ours(), mount(above, "/x", &[])];
            assert!(refused(&needs, over).contains("is in its way"), "{above}");
            let under = with(vec![mount(above, "/x", &[]), ours()]);
            check_given(&needs, &under).unwrap();
        }
        check_given(&needs, &with(vec![ours(), mount("/a/bc", "/x", &[])])).unwrap();
    }
}
