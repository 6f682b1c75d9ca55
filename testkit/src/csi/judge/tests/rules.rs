// SPDX-License-Identifier: Apache-2.0
//! Rules of single calls: secrets, capabilities, paths, contexts.

use tonic::Code;

use super::{
    scene::{ID, Scene, map},
    table::{attached, created, expanded, holds, nothing, plain, published, rule, secrets, staged},
};
use crate::csi::{Options, Secrets};

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
            |s| s.validate(|r| r.volume_context = map([("volume", "other")])),
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

#[test]
fn ids_and_paths_are_given() {
    let all: fn(&mut Options) = |o| {
        secrets(o);
        o.secrets = Secrets::default();
        o.stats = true;
    };
    let mut scene = Scene::new(all);
    expanded(&mut scene);
    let s = &mut scene;
    for judged in [
        s.delete(|r| r.volume_id.clear()),
        s.attach(|r| r.volume_id.clear()),
        s.detach(|r| r.volume_id.clear()),
        s.expand(|r| r.volume_id.clear()),
        s.validate(|r| r.volume_id.clear()),
        s.stage(|r| r.volume_id.clear()),
        s.unstage(|r| r.volume_id.clear()),
        s.publish(|r| {
            r.volume_id.clear();
            r.target_path += "-2";
        }),
        s.unpublish(|r| r.volume_id.clear()),
        s.stats(|r| r.volume_id.clear()),
        s.node_expand(|r| r.volume_id.clear()),
    ] {
        let broken = judged.expect_err("it has no volume_id");
        assert!(broken.text.ends_with(": no volume_id"), "{}", broken.text);
        assert_eq!(broken.code, Code::InvalidArgument);
    }
    for judged in [
        s.stage(|r| r.staging_target_path.clear()),
        s.unstage(|r| r.staging_target_path.clear()),
        s.publish(|r| r.target_path.clear()),
        s.unpublish(|r| r.target_path.clear()),
        s.stats(|r| r.volume_path.clear()),
        s.node_expand(|r| r.volume_path.clear()),
    ] {
        let broken = judged.expect_err("it has no path");
        assert!(broken.text.ends_with(": no path"), "{}", broken.text);
    }
}
