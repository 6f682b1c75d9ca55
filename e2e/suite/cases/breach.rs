// SPDX-License-Identifier: Apache-2.0
//! Where no guard stands, containers that were started without their volume are
//! found, told of, and stopped where the configuration says so (I7).

use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{SHARED, create, doctor::doctor, prepare};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    let name = "a_container_that_started_without_its_volume_is_found_and_stopped";
    vec![Case::new(name, Driver::Local, found_and_stopped).everywhere()]
}

/// The runtime starts an actor's container in a warm sandbox while we are away.
fn started_without(node: &mut Node, annotations: &Annotations) -> (Pod, String) {
    let pod = node.run_pod(&Annotations::new());
    node.kill_serve();
    let spec = ContainerSpec::idle("agent").annotated(annotations);
    let id = node.run(&pod, &spec);
    let output = node.try_sh(&id, "ls -d /my-data");
    assert_ne!(output.code, 0, "it runs, and its volume is not there");
    (pod, id)
}

fn says(node: &Node, level: &str) {
    until_true(&format!("the doctor says {level}"), SOON, || {
        doctor(node).0.get("containers").is_some_and(|l| l == level)
    });
}

fn found_and_stopped(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    let good = node.resume("b");
    let (kept, runs) = node.run_agent(&good);
    says(node, "ok");

    let annotations = node.resume("a");
    let (pod, _) = started_without(node, &annotations);
    node.start_serve();
    says(node, "fail");
    node.remove_pod(&pod);
    says(node, "ok");

    let (pod, id) = started_without(node, &annotations);
    node.configure(
        "sweep_interval_s = 1",
        "sweep_interval_s = 1\non_breach = \"stop-sandbox\"",
    );
    node.start_serve();
    until_true("its sandbox is stopped", SOON, || {
        node.cri
            .container_status(&id)
            .is_ok_and(|(s, _)| s.state != RUNNING)
    });
    says(node, "ok");
    node.remove_pod(&pod);
    node.sh(&runs, "touch /my-data/works");
    // The actor starts as it should.
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/works");
    node.remove_pod(&pod);
    node.remove_pod(&kept);
}

/// CONTAINER_RUNNING of the CRI.
const RUNNING: i32 = 1;
