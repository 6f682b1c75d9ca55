// SPDX-License-Identifier: Apache-2.0
//! Our daemon dies between two effects, with a real runtime around it. The whole
//! matrix of points is in tests/crash, with a runtime of testkit.

use super::{SHARED, create, prepare, runs_in_the_end};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
};
use testkit::cri::ContainerSpec;

/// On the way to a publication.
const PUBLISH: [&str; 5] = [
    "stage-answered",
    "publish-intended",
    "publish-answered",
    "publish-recorded",
    "record-renamed",
];

/// On the way back.
const RELEASE: [&str; 5] = [
    "unpublish-intended",
    "unpublish-answered",
    "unstage-answered",
    "unstage-recorded",
    "record-written",
];

pub(crate) fn cases() -> Vec<Case> {
    let name = "our_daemon_killed_at_any_point_of_a_publish_or_release_goes_on_from_there";
    vec![Case::new(name, Driver::Testkit, killed).guarded()]
}

fn killed(node: &mut Node) {
    prepare(node);
    for actor in ["a", "other"] {
        create(node, actor, SHARED);
    }
    let annotations = node.resume("other");
    let (other_pod, other) = node.run_agent(&annotations);
    let undisturbed = |node: &Node, round: usize| {
        node.sh(&other, &format!("echo {round} >> /my-data/f"));
        let lines = node.sh(&other, "wc -l < /my-data/f");
        assert_eq!(lines.trim(), (round + 1).to_string());
    };
    for (round, (publish, release)) in PUBLISH.into_iter().zip(RELEASE).enumerate() {
        let annotations = node.resume("a");
        let mut pod = None;
        node.die_at(publish, |node| pod = Some(node.run_pod(&annotations)));
        let pod = pod.expect("it was run");
        let agent = runs_in_the_end(node, &pod, &ContainerSpec::idle("agent"));
        undisturbed(node, 2 * round);
        node.sh(
            &agent,
            &format!("echo {round} >> /my-data/f && [ $(wc -l < /my-data/f) = $(({round} + 1)) ]"),
        );
        let mounts = node.held_mounts().len();
        node.die_at(release, |node| node.remove_pod(&pod));
        until_true("its volume is released", SOON, || {
            node.held_mounts().len() == mounts / 2
        });
        undisturbed(node, 2 * round + 1);
        node.suspend("a");
    }
    node.remove_pod(&other_pod);
    node.suspend("other");
}
