// SPDX-License-Identifier: Apache-2.0
//! The end of an actor is the end of its volume.

use super::{SHARED, create, prepare, qualified};
use crate::{Case, driver::Driver, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    on(Driver::Local, "")
}

pub(super) fn on(driver: Driver, prefix: &str) -> Vec<Case> {
    let case = |name: &str, run| Case::new(&format!("{prefix}{name}"), driver, run);
    vec![
        case(
            "delete_removes_the_volume_from_the_backend",
            delete_removes_the_volume,
        ),
        case(
            "delete_of_a_running_actor_is_refused_with_the_reason",
            delete_is_refused,
        ),
    ]
}

fn delete_removes_the_volume(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(
        &agent,
        "mkdir -p /my-data/x/y && echo secret > /my-data/x/y/z",
    );
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.backend().len(), 2, "one volume an actor");
    node.delete("a");
    assert_eq!(
        node.backend().len(),
        1,
        "the volume is gone, the other one is not"
    );
    node.delete("b");
    assert_eq!(node.backend(), [""; 0], "nothing is left in the backend");
    assert_eq!(node.held(), [""; 0], "nothing is left on the node");

    // The name is free, and what comes under it is new.
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "ls -A /my-data"), "");
    node.remove_pod(&pod);
}

fn delete_is_refused(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let message = node
        .av(&["actor", "delete", &qualified("a")])
        .expect_err("a running actor is not deleted");
    for word in [qualified("a").as_str(), "node-a", "suspend"] {
        assert!(message.contains(word), "{word} is not named: {message}");
    }
    node.sh(&agent, "touch /my-data/still-there");
    node.remove_pod(&pod);
    node.suspend("a");
    node.delete("a");
}
