// SPDX-License-Identifier: Apache-2.0
//! The feature behind each line of the table, as the process does it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use actor_volumes::host::{
    device, enter,
    holders::{self, Query},
    idmap, mount,
    privileges::{CapabilitySet, Need, Process},
    sub_path, tree,
};

use crate::places::{Loop, SOMEBODY, SOMEBODY_ELSE, Volume, Waits, run};

/// A feature on a place that was made for it: whether it works is asked by a thread with
/// few capabilities, and the place goes with one that has all.
pub(crate) type Feature = Box<dyn Fn() -> Result<(), String> + Sync>;

/// Makes the place.
pub(crate) fn ready(need: &Need) -> Feature {
    match (need.process, need.capability) {
        (Process::Node, CapabilitySet::SYS_PTRACE) => sees_who_holds_a_volume(),
        (Process::Node, CapabilitySet::DAC_READ_SEARCH) => sees_who_has_a_device_open(),
        (_, CapabilitySet::NET_BIND_SERVICE) => listens_below_1024(),
        (Process::Helper, CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE) => {
            shows_a_directory_of_a_volume()
        }
        (Process::Helper, CapabilitySet::SYS_PTRACE) => maps_owners(),
        (Process::Helper, _) => gives_a_volume_to_a_group(),
        (Process::LocalDriver, CapabilitySet::SYS_ADMIN) => mounts(),
        (Process::LocalDriver, CapabilitySet::DAC_OVERRIDE) => deletes("0700"),
        (Process::LocalDriver, CapabilitySet::FOWNER) => deletes("1777"),
        _ => panic!("no test knows how to try: {}", need.feature),
    }
}

fn sees_who_holds_a_volume() -> Feature {
    let volume = Volume::new();
    let holder = Waits::after(":");
    let query = Query {
        volume: volume.identity(),
        known: Vec::new(),
        passed_over: Vec::new(),
        containers: Vec::new(),
    };
    Box::new(move || {
        let _place = &volume;
        let found = holders::find(std::slice::from_ref(&query)).map_err(|e| e.to_string())?;
        match &found[0] {
            Some(found) if found.pid == holder.pid() => Ok(()),
            other => Err(format!("{other:?} is found")),
        }
    })
}

fn sees_who_has_a_device_open() -> Feature {
    let block = Loop::new();
    let device = device::at(&block.device).unwrap().unwrap();
    let holder = Waits::after(&format!("exec 3< {}", block.device.display()));
    Box::new(move || {
        let _place = &block;
        match device::holder(device, &[], &[]).map_err(|e| e.to_string())? {
            Some(found) if found.pid == holder.pid() => Ok(()),
            other => Err(format!("{other:?} is found")),
        }
    })
}

fn listens_below_1024() -> Feature {
    Box::new(|| {
        // One that is free: a service of this machine may have another.
        let tried = (1000..1024).map(|port| TcpListener::bind(("127.0.0.1", port)));
        let errors: Vec<_> = tried.filter_map(|t| t.err().map(|e| e.kind())).collect();
        if errors.len() < 24 {
            return Ok(());
        }
        Err(format!("{:?}", errors[0]))
    })
}

fn gives_a_volume_to_a_group() -> Feature {
    let volume = Volume::new();
    let shows = volume.identity();
    Box::new(move || {
        enter::own(volume.path(), &shows, 1234).map_err(|e| e.to_string())?;
        let found = fs::metadata(volume.path()).map_err(|e| e.to_string())?;
        match (found.gid(), found.permissions().mode() & 0o7777) {
            (1234, 0o2770) => Ok(()),
            (gid, mode) => Err(format!("its group is {gid}, its mode {mode:o}")),
        }
    })
}

fn shows_a_directory_of_a_volume() -> Feature {
    let (volume, dir) = (Volume::new(), tempfile::tempdir().unwrap());
    let shows = volume.identity();
    Box::new(move || {
        sub_path::show(volume.path(), &shows, ["made"], true, dir.path())
            .and_then(|()| sub_path::take_away(dir.path()))
            .map(drop)
            .map_err(|e| e.to_string())
    })
}

fn maps_owners() -> Feature {
    let (volume, users) = (Volume::new(), Waits::with_users());
    let shows = volume.identity();
    Box::new(move || idmap::can_map(volume.path(), &shows, users.pid()).map_err(|e| e.to_string()))
}

fn mounts() -> Feature {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    Box::new(move || {
        let _place = &dir;
        mount::bind(&from, &to, true)
            .and_then(|()| mount::unmount(&to))
            .map_err(|e| e.to_string())
    })
}

/// A tree in which a directory of somebody's has this mode, and a file of somebody
/// else's.
fn deletes(mode: &str) -> Feature {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let script = format!(
        "cd {at} && mkdir -p tree/inner && touch tree/inner/file && \
         chown {SOMEBODY_ELSE} tree/inner/file && chown {SOMEBODY} tree/inner && \
         chmod {mode} tree/inner"
    );
    run("sh", &["-c", &script]);
    Box::new(move || {
        let parent = fs::File::open(dir.path()).map_err(|e| e.to_string())?;
        tree::remove_tree(&parent, "tree".as_ref()).map_err(|e| e.to_string())
    })
}
