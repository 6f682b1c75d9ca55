// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{
    error::Kind,
    model::{AccessMode, Audience, Generation, GrantActor, ViewMount, VolumeMode},
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
        volumes: vec![volume("v1"), volume("v2"), volume("v3")],
        mounts: mounts
            .iter()
            .map(|(container, volume, path)| GrantMount {
                container: container.map(label),
                volume: label(volume),
                mount_path: (*path).into(),
                read_only: false,
                sub_path: String::new(),
            })
            .collect(),
        devices: Vec::new(),
    }
}

fn published() -> BTreeMap<DnsLabel, PathBuf> {
    ["v1", "v2"]
        .map(|v| (label(v), PathBuf::from(format!("/pub/{v}"))))
        .into()
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
    mounts(
        grant,
        &published(),
        &container(name, &["/proc", "/etc/hosts"]),
    )
    .unwrap()
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
    let needs = mounts(&grant, &published(), &container("a", &[])).unwrap();
    assert_eq!(needs[0].source, Path::new("/pub/v2"));
    assert_eq!(options(&needs[0]), ["rbind", "rprivate", "ro"]);
    assert_eq!(needs[1].source, Path::new("/pub/v1"));
    assert_eq!(options(&needs[1]), ["rbind", "rprivate", "rw"]);
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
        let error = mounts(&grant, &published(), &container("a", &["/ok", own])).unwrap_err();
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
        assert!(mounts(&grant, &published(), &container("a", &[own])).is_ok());
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
    let error = mounts(&grant, &published(), &container("a", &[])).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.to_string().contains("v3"), "{error}");
}

#[test]
fn a_sub_path_is_never_taken_for_the_whole_volume() {
    let mut grant = grant(&[(None, "v1", "/data")]);
    grant.mounts[0].sub_path = "x".into();
    let error = mounts(&grant, &published(), &container("a", &[])).unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
}
