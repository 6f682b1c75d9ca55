// SPDX-License-Identifier: Apache-2.0
//! A driver that is away when it is needed: all goes on by itself when it is
//! back.

use std::time::Duration;

use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare, qualified};
use crate::{
    Case,
    daemon::{until_true, while_true},
    driver::Driver,
    node::{Node, SOON, is_retryable},
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Local, run);
    vec![
        case(
            "a_driver_down_at_create_is_waited_for",
            a_driver_down_at_create_is_waited_for,
        ),
        case(
            "a_driver_down_at_publish_is_waited_for",
            a_driver_down_at_publish_is_waited_for,
        ),
        case(
            "a_driver_down_at_unpublish_is_waited_for",
            a_driver_down_at_unpublish_is_waited_for,
        ),
    ]
}

fn a_driver_down_at_create_is_waited_for(node: &mut Node) {
    prepare(node);
    node.kill_driver();
    let name = qualified("a");
    node.must(&["actor", "create", &name, "--template", SHARED]);
    until_true("the volume tells that its driver is away", SOON, || {
        node.must(&["volume", "ls", "-o", "json"])
            .contains("csi.sock")
    });
    node.start_driver();
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn a_driver_down_at_publish_is_waited_for(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    node.kill_driver();
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("agent");
    for _ in 0..3 {
        let refusal = node
            .cri
            .create_container(&pod, &spec)
            .expect_err("the driver is away");
        assert!(is_retryable(&refusal), "{refusal}");
    }
    node.start_driver();
    let agent = node.run(&pod, &spec);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn a_driver_down_at_unpublish_is_waited_for(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo kept > /my-data/f");
    node.kill_driver();
    node.remove_pod(&pod);
    node.must(&["actor", "suspend", &qualified("a")]);
    while_true("the volume counts as held", Duration::from_secs(2), || {
        !node.held_mounts().is_empty()
    });
    node.start_driver();
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
}
