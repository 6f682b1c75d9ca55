// SPDX-License-Identifier: Apache-2.0
//! Rules of CreateVolume, of capabilities, and of where volumes are used.

use actor_volumes::proto::csi::{
    self as wire,
    volume_capability::{AccessMode, access_mode::Mode},
    volume_content_source as source,
};

use super::{
    scene::{Map, Scene, map, mount, mounting, size},
    table::{attached, created, holds, nothing, plain, rule},
};
use crate::csi::Options;

fn long(map: &mut Map) {
    map.insert("k".into(), "v".repeat(4096));
}

fn topology(value: &str) -> wire::Topology {
    wire::Topology {
        segments: map([("zone", value)]),
    }
}

fn zones(options: &mut Options) {
    let zone = |zone: &str| [("zone".to_owned(), zone.to_owned())].into();
    options.topologies = [
        ("node-a".to_owned(), zone("1")),
        ("node-b".to_owned(), zone("2")),
    ]
    .into();
}

fn requirement(requisite: &str, preferred: &str) -> Option<wire::TopologyRequirement> {
    Some(wire::TopologyRequirement {
        requisite: vec![topology(requisite)],
        preferred: vec![topology(preferred)],
    })
}

fn from_volume() -> Option<wire::VolumeContentSource> {
    Some(wire::VolumeContentSource {
        r#type: Some(source::Type::Volume(source::VolumeSource {
            volume_id: "x".into(),
        })),
    })
}

fn from_snapshot() -> Option<wire::VolumeContentSource> {
    Some(wire::VolumeContentSource {
        r#type: Some(source::Type::Snapshot(source::SnapshotSource {
            snapshot_id: "x".into(),
        })),
    })
}

#[test]
fn create_volume() {
    holds(&[
        rule(
            "CREATE_DELETE_VOLUME",
            plain,
            nothing,
            |s| s.create(|_| ()),
            |s| {
                s.options.create = false;
                s.create(|_| ())
            },
        ),
        rule(
            "no name",
            plain,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.name.clear()),
        ),
        rule(
            "control characters",
            plain,
            nothing,
            |s| s.create(|r| r.name = "a\tb".into()),
            |s| s.create(|r| r.name = "a\u{7f}b".into()),
        ),
        rule(
            "name of 129 bytes",
            plain,
            nothing,
            |s| s.create(|r| r.name = "n".repeat(128)),
            |s| s.create(|r| r.name = "n".repeat(129)),
        ),
        rule(
            "after it was deleted",
            plain,
            |s| s.created().delete(|_| ()).unwrap(),
            |s| s.create(|r| r.name = "another".into()),
            |s| s.create(|_| ()),
        ),
        rule(
            "capacity_range without a size",
            plain,
            nothing,
            |s| s.create(|r| r.capacity_range = None),
            |s| s.create(|r| r.capacity_range = Some(size(0))),
        ),
        rule(
            "that nothing fits",
            plain,
            nothing,
            |s| s.create(|r| r.capacity_range.as_mut().unwrap().limit_bytes = 1 << 20),
            |s| s.create(|r| r.capacity_range.as_mut().unwrap().limit_bytes = 1),
        ),
        rule(
            "no volume_capabilities",
            plain,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.volume_capabilities.clear()),
        ),
        rule(
            "parameters of 4097 bytes",
            plain,
            nothing,
            |s| s.create(|r| r.parameters = map([("k", "v")])),
            |s| s.create(|r| long(&mut r.parameters)),
        ),
        rule(
            "for the caller alone",
            plain,
            nothing,
            |s| s.create(|r| r.parameters = map([("csi.example/x", "v")])),
            |s| s.create(|r| r.parameters = map([("csi.storage.k8s.io/fstype", "v")])),
        ),
        rule(
            "MODIFY_VOLUME",
            plain,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.mutable_parameters = map([("k", "v")])),
        ),
        rule(
            "VOLUME_ACCESSIBILITY_CONSTRAINTS",
            zones,
            nothing,
            |s| s.create(|r| r.accessibility_requirements = requirement("1", "1")),
            |s| {
                s.options.topologies.clear();
                s.create(|r| r.accessibility_requirements = requirement("1", "1"))
            },
        ),
        rule(
            "not a requisite one",
            zones,
            nothing,
            |s| s.create(|r| r.accessibility_requirements = requirement("1", "1")),
            |s| s.create(|r| r.accessibility_requirements = requirement("1", "2")),
        ),
        rule(
            "without segments",
            zones,
            nothing,
            |s| s.create(|r| r.accessibility_requirements = requirement("1", "1")),
            |s| {
                s.create(|r| {
                    let empty = wire::TopologyRequirement {
                        requisite: vec![wire::Topology::default()],
                        preferred: Vec::new(),
                    };
                    r.accessibility_requirements = Some(empty);
                })
            },
        ),
        rule(
            "without a topology",
            zones,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.accessibility_requirements = Some(Default::default())),
        ),
        rule(
            "CLONE_VOLUME",
            |o| o.clone_volume = true,
            nothing,
            |s| s.create(|r| r.volume_content_source = from_volume()),
            |s| {
                s.options.clone_volume = false;
                s.create(|r| r.volume_content_source = from_volume())
            },
        ),
        rule(
            "CREATE_DELETE_SNAPSHOT",
            |o| o.clone_volume = true,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.volume_content_source = from_snapshot()),
        ),
        rule(
            "volume_content_source of nothing",
            |o| o.clone_volume = true,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.volume_content_source = Some(Default::default())),
        ),
    ]);
}

#[test]
fn capabilities_of_a_volume() {
    holds(&[
        rule(
            "no volume_capability",
            plain,
            created,
            |s| s.attach(|_| ()),
            |s| s.attach(|r| r.volume_capability = None),
        ),
        rule(
            "no access_type",
            plain,
            created,
            |s| s.attach(|_| ()),
            |s| s.attach(|r| r.volume_capability.as_mut().unwrap().access_type = None),
        ),
        rule(
            "SINGLE_NODE_SINGLE_WRITER was not advertised",
            plain,
            created,
            |s| s.attach(|r| r.volume_capability = Some(mount(Mode::SingleNodeSingleWriter))),
            |s| {
                s.options.node_single_node_modes = false;
                s.attach(|r| r.volume_capability = Some(mount(Mode::SingleNodeSingleWriter)))
            },
        ),
        rule(
            "UNKNOWN was not advertised",
            plain,
            created,
            |s| s.attach(|_| ()),
            |s| {
                let unknown = Some(AccessMode::default());
                s.attach(|r| r.volume_capability.as_mut().unwrap().access_mode = unknown)
            },
        ),
        rule(
            "fs_type of 129 bytes",
            plain,
            attached,
            |s| s.stage(|r| mounting(&mut r.volume_capability).fs_type = "ext4".into()),
            |s| s.stage(|r| mounting(&mut r.volume_capability).fs_type = "f".repeat(129)),
        ),
        rule(
            "mount_flags of 5000 bytes",
            plain,
            attached,
            |s| {
                s.stage(|r| {
                    mounting(&mut r.volume_capability).mount_flags = vec!["noatime".into()];
                })
            },
            |s| {
                s.stage(|r| {
                    mounting(&mut r.volume_capability).mount_flags = vec!["f".repeat(100); 50];
                })
            },
        ),
        rule(
            "VOLUME_MOUNT_GROUP",
            |o| o.mount_group = true,
            attached,
            |s| {
                s.stage(|r| {
                    mounting(&mut r.volume_capability).volume_mount_group = "1000".into();
                })
            },
            |s| {
                s.options.mount_group = false;
                s.stage(|r| {
                    mounting(&mut r.volume_capability).volume_mount_group = "1000".into();
                })
            },
        ),
    ]);
}

#[test]
fn volumes_are_used_where_they_can_be_reached() {
    let in_zone_1: fn(&mut Scene) = |s| {
        s.topology = vec![topology("1")];
        s.created();
    };
    holds(&[
        rule(
            "can not be reached",
            zones,
            in_zone_1,
            |s| s.attach(|_| ()),
            |s| s.attach(|r| r.node_id = "node-b".into()),
        ),
        rule(
            "can not be reached",
            |o| {
                zones(o);
                o.attach = false;
            },
            in_zone_1,
            |s| s.stage(|_| ()),
            |s| {
                s.node = "node-b";
                s.stage(|_| ())
            },
        ),
    ]);
}
