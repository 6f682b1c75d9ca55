// SPDX-License-Identifier: Apache-2.0
//! Rules of single calls as a table, and what they begin with.

use super::scene::{Judged, Scene};
use crate::csi::{Expansion, Options, Secrets};

/// A rule: what is said when it is broken, for whom, after what, by what.
pub(super) struct Rule {
    says: &'static str,
    options: fn(&mut Options),
    before: fn(&mut Scene),
    keeps: fn(&mut Scene) -> Judged,
    breaks: fn(&mut Scene) -> Judged,
}

pub(super) const fn rule(
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
pub(super) fn holds(rules: &[Rule]) {
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

pub(super) fn plain(_: &mut Options) {}

pub(super) fn nothing(_: &mut Scene) {}

pub(super) fn created(scene: &mut Scene) {
    scene.created();
}

pub(super) fn attached(scene: &mut Scene) {
    scene.attached();
}

pub(super) fn staged(scene: &mut Scene) {
    scene.staged();
}

pub(super) fn published(scene: &mut Scene) {
    scene.published();
}

pub(super) fn secrets(options: &mut Options) {
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

pub(super) fn expanded(scene: &mut Scene) {
    scene.published().expand(|_| ()).unwrap();
}
