// SPDX-License-Identifier: Apache-2.0
//! Pods that come too late, and sandboxes that end before their containers.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare, qualified};
use crate::{
    Case,
    daemon::{until_true, while_true},
    driver::Driver,
    leaks,
    node::{Node, SOON, is_retryable},
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Local, run);
    vec![
        case(
            "a_pod_that_comes_after_the_suspend_is_refused",
            a_pod_that_comes_after_the_suspend_is_refused,
        ),
        case(
            "a_sandbox_that_is_not_ready_keeps_its_volume_until_its_container_is_gone",
            a_sandbox_that_is_not_ready_keeps_its_volume_until_its_container_is_gone,
        )
        .everywhere(),
    ]
}

fn a_pod_that_comes_after_the_suspend_is_refused(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let old = node.resume("a");
    node.suspend("a");
    let late = node.run_pod(&old);
    let spec = ContainerSpec::idle("agent");
    let refused = |node: &Node, pod| {
        let refusal = node
            .cri
            .create_container(pod, &spec)
            .expect_err("it is too late");
        assert!(!is_retryable(&refusal), "no retry can help: {refusal}");
        assert!(refusal.message.contains(&qualified("a")), "{refusal}");
    };
    refused(node, &late);
    assert_eq!(node.held_mounts(), [""; 0]);

    // Nor does it count beside the pod of the next resume.
    let new = node.resume("a");
    let (pod, agent) = node.run_agent(&new);
    refused(node, &late);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&late);
    node.sh(&agent, "test -f /my-data/f");
    node.remove_pod(&pod);
}

fn a_sandbox_that_is_not_ready_keeps_its_volume_until_its_container_is_gone(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let (_, info) = node.cri.pod_status(&pod.id).expect("the sandbox runs");
    let pid = info["pid"].as_i64().and_then(|p| i32::try_from(p).ok());
    let pid = pid
        .and_then(Pid::from_raw)
        .expect("a running sandbox has a pid");
    kill_process(pid, Signal::KILL).expect("its process is there");
    until_true("the sandbox is not ready", SOON, || {
        node.cri
            .pod_status(&pod.id)
            .is_ok_and(|(s, _)| s.state != 0)
    });
    node.must(&["actor", "suspend", &qualified("a")]);
    // The sweep looks every second; it must not take the volume away.
    while_true(
        "the container writes to its volume",
        Duration::from_secs(4),
        || node.try_sh(&agent, "date >> /my-data/f").code == 0 && !node.held_mounts().is_empty(),
    );
    node.cri.stop_container(&agent).expect("it stops");
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    node.remove_pod(&pod);
    leaks::end_shim(&node.dir, &pod.id);
}
