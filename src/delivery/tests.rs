// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{
    error::Kind,
    model::{AccessMode, Audience, Generation, GrantActor, ViewMount},
};

fn label(text: &str) -> DnsLabel {
    text.parse().unwrap()
}

fn grant(mounts: &[(Option<&str>, &str, &str)]) -> Grant {
    let volume = |name: &str| GrantVolume {
        name: label(name),
        uid: name.parse().unwrap(),
        generation: Generation(1),
        driver: "d".parse().unwrap(),
        volume_id: name.into(),
        volume_mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        access_mode: AccessMode::SingleNodeWriter,
        mount_flags: Vec::new(),
        mount_group: String::new(),
        secret_refs: BTreeMap::new(),
        volume_context: BTreeMap::new(),
        publish_context: BTreeMap::new(),
    };
    Grant {
        version: 1,
        actor: GrantActor {
            namespace: label("n"),
            name: label("a"),
            uid: "u".parse().unwrap(),
        },
        node: "node".parse().unwrap(),
        audience: Audience::Pod {
            namespace: label("n"),
            pod: None,
        },
        not_after: None,
        self_contained: false,
        volumes: vec![volume("v1"), volume("v2"), volume("v3")],
        mounts: mounts
            .iter()
            .map(|(container, volume, path)| GrantMount {
                container: container.map(label),
                volume: label(volume),
                mount_path: (*path).into(),
                read_only: false,
                sub_path: None,
            })
            .collect(),
        devices: Vec::new(),
    }
}

fn published() -> BTreeMap<DnsLabel, Shown> {
    let shown = |volume: &str, device| {
        let path = PathBuf::from(format!("/pub/{volume}"));
        let sub_paths = [("x".parse().unwrap(), format!("/sub/{volume}/x").into())].into();
        let shown = Shown {
            path,
            sub_paths,
            device,
            flags: Flags::default(),
        };
        (label(volume), shown)
    };
    [
        shown("v1", None),
        shown("v2", None),
        shown("raw", Some((7, 3))),
    ]
    .into()
}

/// With the block volume `raw` at this path.
fn with_device(mut grant: Grant, path: &str) -> Grant {
    let mut raw = grant.volumes[0].clone();
    raw.name = label("raw");
    raw.volume_mode = VolumeMode::Block;
    grant.volumes.push(raw);
    grant.devices.push(GrantDevice {
        container: Some(label("a")),
        volume: label("raw"),
        device_path: path.into(),
    });
    grant
}

fn container(name: &str, own: &[&str]) -> ContainerView {
    ContainerView {
        name: name.into(),
        mounts: own
            .iter()
            .map(|destination| ViewMount {
                destination: (*destination).into(),
                source: "/host".into(),
            })
            .collect(),
        ..ContainerView::default()
    }
}

fn destinations(grant: &Grant, name: &str) -> Vec<String> {
    needs(
        grant,
        &published(),
        &container(name, &["/proc", "/etc/hosts"]),
    )
    .unwrap()
    .mounts
    .into_iter()
    .map(|need| need.destination)
    .collect()
}

#[test]
fn a_container_gets_its_own_mounts_and_those_for_every_container() {
    let grant = grant(&[(None, "v1", "/all"), (Some("a"), "v2", "/only-a")]);
    assert_eq!(destinations(&grant, "a"), ["/all", "/only-a"]);
    assert_eq!(destinations(&grant, "b"), ["/all"]);
    let names = |name: &str| -> Vec<String> {
        volumes_for(&grant, name)
            .iter()
            .map(|v| v.name.to_string())
            .collect()
    };
    assert_eq!(names("a"), ["v1", "v2"]);
    assert_eq!(names("b"), ["v1"]);
}

#[test]
fn source_and_access_come_with_the_mount() {
    let mut grant = grant(&[(None, "v2", "/ro"), (None, "v1", "/rw")]);
    grant.mounts[0].read_only = true;
    let needs = needs(&grant, &published(), &container("a", &[]))
        .unwrap()
        .mounts;
    assert_eq!(needs[0].source, Path::new("/pub/v2"));
    let hardened = |access| ["rbind", "rprivate", access, "nosuid", "nodev"];
    assert_eq!(options(&needs[0]), hardened("ro"));
    assert_eq!(needs[1].source, Path::new("/pub/v1"));
    assert_eq!(options(&needs[1]), hardened("rw"));
}

#[test]
fn parents_come_before_what_is_below_them() {
    let grant = grant(&[
        (None, "v1", "/data/cache/x"),
        (None, "v2", "/data-old"),
        (None, "v1", "/data"),
        (None, "v2", "/data/cache"),
    ]);
    assert_eq!(
        destinations(&grant, "a"),
        ["/data", "/data/cache", "/data/cache/x", "/data-old"]
    );
}

#[test]
fn what_would_hide_an_own_mount_is_refused_with_both_names() {
    for (path, own) in [
        ("/proc", "/proc"),
        ("/etc", "/etc/hosts"),
        ("/dev", "/dev/shm"),
        ("/data", "/data/"),
        ("/data", "//data/./sub"),
        ("/data", "/x/../data"),
        ("/data", "data"),
        ("/data", "/../data"),
    ] {
        let grant = grant(&[(None, "v1", path)]);
        let error = needs(&grant, &published(), &container("a", &["/ok", own])).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(path) && text.contains(own), "{text}");
    }
}

#[test]
fn a_mount_beside_or_below_an_own_mount_is_fine() {
    for (path, own) in [
        ("/data", "/data2"),
        ("/data/sub", "/data"),
        ("/dev/shm/a", "/dev/shm"),
        ("/data", "/"),
    ] {
        let grant = grant(&[(None, "v1", path)]);
        assert!(needs(&grant, &published(), &container("a", &[own])).is_ok());
    }
}

#[test]
fn a_mount_for_another_container_does_not_conflict() {
    let grant = grant(&[(Some("b"), "v1", "/proc"), (None, "v2", "/data")]);
    assert_eq!(destinations(&grant, "a"), ["/data"]);
}

#[test]
fn a_volume_that_is_not_published_is_never_left_out() {
    let grant = grant(&[(None, "v1", "/data"), (None, "v3", "/more")]);
    let error = needs(&grant, &published(), &container("a", &[])).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("v3"), "{error}");
}

#[test]
fn a_sub_path_is_never_taken_for_the_whole_volume() {
    let mut grant = grant(&[(None, "v1", "/data"), (None, "v1", "/whole")]);
    grant.mounts[0].sub_path = Some("x".parse().unwrap());
    let given = needs(&grant, &published(), &container("a", &[])).unwrap();
    let sources = given.mounts.iter().map(|m| m.source.as_path());
    assert!(sources.eq([Path::new("/sub/v1/x"), Path::new("/pub/v1")]));
    grant.mounts[0].sub_path = Some("y".parse().unwrap());
    let error = needs(&grant, &published(), &container("a", &[])).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("subPath y"), "{error}");
}

#[test]
fn a_block_volume_is_a_device_of_the_containers_that_have_it() {
    let grant = with_device(grant(&[(None, "v1", "/data")]), "/dev/xvda");
    let own = ["/dev", "/dev/shm", "/proc"];
    let given = needs(&grant, &published(), &container("a", &own)).unwrap();
    let device = DeviceNeed {
        path: "/dev/xvda".into(),
        major: 7,
        minor: 3,
        read_only: false,
    };
    assert_eq!(given.devices, [device]);
    assert_eq!(given.mounts.len(), 1);
    let names = |name: &str| volumes_for(&grant, name).len();
    assert_eq!((names("a"), names("b")), (2, 1));
    let other = needs(&grant, &published(), &container("b", &own)).unwrap();
    assert_eq!(other.devices, []);
}

#[test]
fn a_device_is_never_made_in_a_mount() {
    for path in ["/data/disk", "/data", "/proc/disk", "/dev/shm/disk"] {
        let grant = with_device(grant(&[(None, "v1", "/data")]), path);
        let own = ["/dev", "/dev/shm", "/proc"];
        let error = needs(&grant, &published(), &container("a", &own)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn a_volume_that_nobody_may_write_is_given_read_only() {
    let mut grant = with_device(grant(&[(None, "v1", "/data")]), "/dev/xvda");
    for volume in &mut grant.volumes {
        volume.access_mode = AccessMode::MultiNodeReaderOnly;
    }
    let given = needs(&grant, &published(), &container("a", &[])).unwrap();
    assert!(given.mounts[0].read_only && given.devices[0].read_only);
}

#[test]
fn what_is_published_must_be_of_the_kind_that_was_asked_for() {
    let grant = with_device(grant(&[(None, "v1", "/data")]), "/dev/xvda");
    let mut published = published();
    published.get_mut(&label("raw")).unwrap().device = None;
    let error = needs(&grant, &published, &container("a", &[])).unwrap_err();
    assert!(error.to_string().contains("no block device"), "{error}");
}
