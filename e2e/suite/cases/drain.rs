// SPDX-License-Identifier: Apache-2.0
//! `node drain` and `node uncordon`.

use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare};
use crate::{Case, driver::Driver, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    let name = "a_drained_node_takes_no_new_pods_and_says_who_blocks";
    vec![Case::new(name, Driver::Local, drained)]
}

fn drained(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let said = node.av(&["node", "drain"]).expect("it is told");
    assert!(said.contains(&pod.id), "who blocks is named: {said}");
    let failed = node
        .av(&["node", "drain", "--wait", "--timeout", "1s"])
        .expect_err("the pod runs on");
    assert!(failed.contains("not empty yet"), "{failed}");
    // What is there goes on, with restarts.
    node.cri.stop_container(&agent).expect("it stops");
    let again = node.run(&pod, &ContainerSpec::idle("agent").attempt(1));
    node.sh(&again, "touch /my-data/works");
    let other = node.resume("b");
    let late = node.run_pod(&other);
    let refused = node
        .cri
        .create_container(&late, &ContainerSpec::idle("agent"))
        .expect_err("no new ones are taken");
    assert!(refused.message.contains("is being drained"), "{refused}");

    node.remove_pod(&pod);
    node.av(&["node", "drain", "--wait"]).expect("it is empty");
    node.kill_serve();
    node.start_serve();
    let refused = node
        .cri
        .create_container(&late, &ContainerSpec::idle("agent").attempt(1));
    refused.expect_err("a restart does not end it");
    node.av(&["node", "uncordon"]).expect("it is told");
    let agent = node.run(&late, &ContainerSpec::idle("agent").attempt(2));
    node.sh(&agent, "touch /my-data/works");
    node.remove_pod(&late);
}
