// SPDX-License-Identifier: Apache-2.0
//! Rules of single calls, as a table.

use actor_volumes::proto::csi::{
    self as wire,
    volume_capability::{AccessMode, access_mode::Mode},
    volume_content_source as source,
};

use super::scene::{ID, Judged, Map, Scene, map, mount, mounting, size};
use crate::csi::{Expansion, Options, Secrets};

/// A rule: what is said when it is broken, for whom, after what, by what.
struct Rule {
    says: &'static str,
    options: fn(&mut Options),
    before: fn(&mut Scene),
    keeps: fn(&mut Scene) -> Judged,
    breaks: fn(&mut Scene) -> Judged,
}

const fn rule(
    says: &'static str,
    options: fn(&mut Options),
    before: fn(&mut Scene),
    keeps: fn(&mut Scene) -> Judged,
    breaks: fn(&mut Scene) -> Judged,
) -> Rule {
    Rule {
        says,
        options,
        before,
        keeps,
        breaks,
    }
}

#[track_caller]
fn holds(rules: &[Rule]) {
    for Rule {
        says,
        options,
        before,
        keeps,
        breaks,
    } in rules
    {
        let scene = || {
            let mut scene = Scene::new(*options);
            before(&mut scene);
            scene
        };
        let kept = keeps(&mut scene());
        assert_eq!(kept, Ok(()), "{says}");
        let broken = breaks(&mut scene()).expect_err(says);
        assert!(broken.text.contains(says), "{says}: {}", broken.text);
    }
}

fn plain(_: &mut Options) {}

fn nothing(_: &mut Scene) {}

fn created(scene: &mut Scene) {
    scene.created();
}

fn attached(scene: &mut Scene) {
    scene.attached();
}

fn staged(scene: &mut Scene) {
    scene.staged();
}

fn published(scene: &mut Scene) {
    scene.published();
}

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

fn secrets(options: &mut Options) {
    let secret = |value: &str| [("key".to_owned(), value.to_owned())].into();
    options.secrets = Secrets {
        provisioner: secret("secret-provisioner"),
        controller_publish: secret("secret-controller-publish"),
        node_stage: secret("secret-node-stage"),
        node_publish: secret("secret-node-publish"),
        controller_expand: secret("secret-controller-expand"),
        node_expand: secret("secret-node-expand"),
    };
    options.expand_controller = true;
    options.expand_node = true;
    options.expansion = Some(Expansion::Online);
}

fn expanded(scene: &mut Scene) {
    scene.published().expand(|_| ()).unwrap();
}

#[test]
fn secrets_are_where_they_belong_and_nowhere_else() {
    const OTHER: &str = "secrets other than";
    holds(&[
        rule(
            OTHER,
            secrets,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            plain,
            nothing,
            |s| s.create(|_| ()),
            |s| s.create(|r| r.secrets = map([("key", "unasked")])),
        ),
        rule(
            OTHER,
            secrets,
            created,
            |s| s.delete(|_| ()),
            |s| s.delete(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            secrets,
            created,
            |s| s.validate(|_| ()),
            |s| s.validate(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            secrets,
            created,
            |s| s.attach(|_| ()),
            |s| s.attach(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            secrets,
            attached,
            |s| s.detach(|_| ()),
            |s| s.detach(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            secrets,
            attached,
            |s| s.stage(|_| ()),
            |s| s.stage(|r| r.secrets = map([("key", "secret-node-publish")])),
        ),
        rule(
            OTHER,
            secrets,
            staged,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.secrets = map([("key", "secret-node-stage")])),
        ),
        rule(
            OTHER,
            secrets,
            created,
            |s| s.expand(|_| ()),
            |s| s.expand(|r| r.secrets.clear()),
        ),
        rule(
            OTHER,
            secrets,
            expanded,
            |s| s.node_expand(|_| ()),
            |s| s.node_expand(|r| r.secrets.clear()),
        ),
        rule(
            "the value of a secret in another field",
            secrets,
            nothing,
            |s| s.create(|r| r.parameters = map([("key", "provisioner")])),
            |s| s.create(|r| r.parameters = map([("key", "a secret-node-stage b")])),
        ),
        rule(
            "the value of a secret in another field",
            secrets,
            published,
            |s| s.unpublish(|_| ()),
            |s| s.unpublish(|r| r.target_path += "/secret-node-publish"),
        ),
    ]);
}

#[test]
fn what_is_not_advertised_is_not_called() {
    let all: fn(&mut Options) = |o| {
        secrets(o);
        o.secrets = Secrets::default();
        (o.list, o.stats, o.publish_readonly) = (true, true, true);
    };
    holds(&[
        rule(
            "PUBLISH_UNPUBLISH_VOLUME",
            all,
            created,
            |s| s.attach(|_| ()),
            |s| {
                s.options.attach = false;
                s.attach(|_| ())
            },
        ),
        rule(
            "PUBLISH_UNPUBLISH_VOLUME",
            all,
            attached,
            |s| s.detach(|_| ()),
            |s| {
                s.options.attach = false;
                s.detach(|_| ())
            },
        ),
        rule(
            "PUBLISH_READONLY",
            all,
            created,
            |s| s.attach(|r| r.readonly = true),
            |s| {
                s.options.publish_readonly = false;
                s.attach(|r| r.readonly = true)
            },
        ),
        rule(
            "CREATE_DELETE_VOLUME",
            all,
            created,
            |s| s.delete(|_| ()),
            |s| {
                s.options.create = false;
                s.delete(|_| ())
            },
        ),
        rule(
            "EXPAND_VOLUME",
            all,
            created,
            |s| s.expand(|_| ()),
            |s| {
                s.options.expand_controller = false;
                s.expand(|_| ())
            },
        ),
        rule(
            "VolumeExpansion",
            all,
            created,
            |s| s.expand(|_| ()),
            |s| {
                s.options.expansion = None;
                s.expand(|_| ())
            },
        ),
        rule(
            "EXPAND_VOLUME",
            all,
            expanded,
            |s| s.node_expand(|_| ()),
            |s| {
                s.options.expand_node = false;
                s.node_expand(|_| ())
            },
        ),
        rule(
            "LIST_VOLUMES",
            all,
            nothing,
            |s| s.list(|_| ()),
            |s| {
                s.options.list = false;
                s.list(|_| ())
            },
        ),
        rule(
            "GET_VOLUME_STATS",
            all,
            published,
            |s| s.stats(|_| ()),
            |s| {
                s.options.stats = false;
                s.stats(|_| ())
            },
        ),
        rule(
            "STAGE_UNSTAGE_VOLUME",
            all,
            attached,
            |s| s.stage(|_| ()),
            |s| {
                s.options.stage = false;
                s.stage(|_| ())
            },
        ),
        rule(
            "STAGE_UNSTAGE_VOLUME",
            all,
            staged,
            |s| s.unstage(|_| ()),
            |s| {
                s.options.stage = false;
                s.unstage(|_| ())
            },
        ),
        rule(
            "STAGE_UNSTAGE_VOLUME",
            |o| o.stage = false,
            attached,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.staging_target_path = "/staging".into()),
        ),
    ]);
}

#[test]
fn paths() {
    holds(&[
        rule(
            "a path of 129 bytes",
            plain,
            published,
            |s| s.unpublish(|_| ()),
            |s| s.unpublish(|r| r.target_path = format!("/{}", "p".repeat(128))),
        ),
        rule(
            "not absolute",
            plain,
            published,
            |s| s.unpublish(|_| ()),
            |s| s.unpublish(|r| r.target_path = "target".into()),
        ),
        rule(
            "not absolute",
            plain,
            published,
            |s| s.unpublish(|_| ()),
            |s| s.unpublish(|r| r.target_path = "/a/../b".into()),
        ),
        rule(
            "the volume's id is a part of a path",
            plain,
            staged,
            |s| s.publish(|r| r.target_path += "-av"),
            |s| {
                let target = s.path("av#1");
                s.publish(|r| r.target_path = target)
            },
        ),
        rule(
            "the directory does not exist",
            plain,
            attached,
            |s| s.stage(|_| ()),
            |s| s.stage(|r| r.staging_target_path += "/none"),
        ),
        rule(
            "the parent directory does not exist",
            plain,
            staged,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.target_path += "/none"),
        ),
        rule(
            "the path of",
            plain,
            published,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.volume_id = "another".into()),
        ),
        rule(
            "but it is staged at",
            plain,
            staged,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.staging_target_path.clear()),
        ),
        rule(
            "staged at",
            plain,
            staged,
            |s| s.stage(|_| ()),
            |s| {
                let elsewhere = s.path("");
                s.stage(|r| r.staging_target_path = elsewhere.trim_end_matches('/').into())
            },
        ),
        rule(
            "staged at",
            plain,
            staged,
            |s| s.unstage(|_| ()),
            |s| s.unstage(|r| r.staging_target_path += "/x"),
        ),
        rule(
            "not staged or published there",
            |o| o.stats = true,
            published,
            |s| {
                let staging = s.path("staging");
                s.stats(|r| r.volume_path = staging)
            },
            |s| s.stats(|r| r.volume_path += "/x"),
        ),
        rule(
            "but it is elsewhere",
            |o| o.stats = true,
            published,
            |s| s.stats(|r| r.staging_target_path.clear()),
            |s| s.stats(|r| r.staging_target_path += "/x"),
        ),
        rule(
            "node_id of 257 bytes",
            plain,
            created,
            |s| s.attach(|r| r.node_id = "n".repeat(256)),
            |s| s.attach(|r| r.node_id = "n".repeat(257)),
        ),
    ]);
}

#[test]
fn contexts_come_back_unchanged() {
    holds(&[
        rule(
            "another volume_context",
            plain,
            created,
            |s| s.attach(|_| ()),
            |s| s.attach(|r| r.volume_context.clear()),
        ),
        rule(
            "another volume_context",
            plain,
            created,
            |s| s.validate(|_| ()),
            |s| s.validate(|r| r.volume_context.clear()),
        ),
        rule(
            "another volume_context",
            plain,
            attached,
            |s| s.stage(|_| ()),
            |s| s.stage(|r| r.volume_context = map([("volume", "av"), ("more", "x")])),
        ),
        rule(
            "another volume_context",
            plain,
            staged,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.volume_context.clear()),
        ),
        rule(
            "another publish_context",
            plain,
            attached,
            |s| s.stage(|_| ()),
            |s| s.stage(|r| r.publish_context = map([("token", "node-b")])),
        ),
        rule(
            "another publish_context",
            plain,
            staged,
            |s| s.publish(|_| ()),
            |s| s.publish(|r| r.publish_context.clear()),
        ),
        rule(
            "that was never given",
            |o| o.attach = false,
            created,
            |s| s.stage(|_| ()),
            |s| s.stage(|r| r.publish_context = map([("token", "node-a")])),
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

#[test]
fn lists_and_sizes() {
    let all: fn(&mut Options) = |o| {
        secrets(o);
        o.secrets = Secrets::default();
        o.list = true;
    };
    holds(&[
        rule(
            "max_entries below 0",
            all,
            nothing,
            |s| s.list(|r| r.max_entries = 1),
            |s| s.list(|r| r.max_entries = -1),
        ),
        rule(
            "no capacity_range",
            all,
            created,
            |s| s.expand(|_| ()),
            |s| s.expand(|r| r.capacity_range = None),
        ),
        rule(
            "before ControllerExpandVolume",
            all,
            published,
            |s| {
                s.expand(|_| ()).unwrap();
                s.node_expand(|_| ())
            },
            |s| s.node_expand(|_| ()),
        ),
        rule(
            "no volume_capabilities",
            plain,
            created,
            |s| s.validate(|_| ()),
            |s| s.validate(|r| r.volume_capabilities.clear()),
        ),
    ]);
    // Ids that the driver never gave are nobody's.
    let mut scene = Scene::new(plain);
    assert_eq!(scene.delete(|r| r.volume_id = format!("{ID}x")), Ok(()));
}
