// SPDX-License-Identifier: Apache-2.0
//! The processes of `serve`, each killed alone under a running actor, and all of them
//! with their parent.

use rustix::process::Signal;
use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare, qualified, runs_in_the_end};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Testkit, run);
    vec![
        case(
            "a_process_of_serve_that_is_killed_alone_disturbs_no_running_actor",
            each_alone,
        )
        .everywhere(),
        case(
            "a_release_waits_also_while_the_node_agent_is_started_again",
            killed_while_a_release_waits,
        ),
        case(
            "no_process_of_serve_outlives_its_parent",
            killed_with_the_parent,
        ),
        case(
            "without_the_control_plane_what_it_has_granted_still_comes_up",
            without_control,
        )
        .guarded(),
    ]
}

fn each_alone(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let (mounts, serve) = (node.held_mounts(), node.serve_pid());
    for part in ["control", "node", "helper", "control", "node", "helper"] {
        node.kill_part(part, |node| {
            node.sh(&agent, &format!("echo {part} >> /my-data/f"));
        });
        assert_eq!(node.serve_pid(), serve, "the parent goes on");
        assert_eq!(node.held_mounts(), mounts, "the mounts stay");
        // Verbs work again, and so do new pods, with what was there and another.
        let more = ContainerSpec::idle("agent").attempt(7);
        let annotations = node.resume("b");
        let other = node.run_pod(&annotations);
        let id = runs_in_the_end(node, &other, &more);
        node.sh(&id, "echo b >> /my-data/f");
        node.remove_pod(&other);
        node.suspend("b");
        assert_eq!(node.held_mounts(), mounts, "the other's are gone");
    }
    let written = node.sh(&agent, "cat /my-data/f");
    assert_eq!(written, "control\nnode\nhelper\ncontrol\nnode\nhelper");
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    for process in node.serve_processes() {
        println!("    {process}");
    }
}

fn killed_while_a_release_waits(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let name = qualified("a");
    let suspend = ["actor", "suspend", &name, "--wait", "--timeout", "2s"];
    node.av(&suspend).expect_err("its container runs");
    node.kill_part("node", |_| {});
    node.av(&suspend).expect_err("its container runs");
    node.kill_part("control", |_| {});
    node.av(&suspend).expect_err("its container runs");
    node.sh(&agent, "echo kept > /my-data/f");
    // Its grant is over: whatever was killed, no other container gets the volume.
    let late = node.run_pod(&annotations);
    let refused = node
        .cri
        .create_container(&late, &ContainerSpec::idle("agent"));
    refused.expect_err("the actor is being suspended");
    node.remove_pod(&late);
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
}

fn killed_with_the_parent(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let (mounts, before) = (node.held_mounts(), node.connections());
    let next = node.one_more_serve("serve");
    node.kill_serve_alone();
    assert_eq!(node.held_mounts(), mounts, "the mounts stay");
    node.sh(&agent, "echo kept > /my-data/f");
    // The next one stood by.
    node.serve_is(next, before);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
}

fn without_control(node: &mut Node) {
    prepare(node);
    for actor in ["a", "b"] {
        create(node, actor, SHARED);
    }
    let annotations = ["a", "b"].map(|actor| node.resume(actor));
    // It answers nobody, and is there.
    node.signal_part("control", Signal::STOP);
    let pods = annotations.map(|of| {
        let (pod, agent) = node.run_agent(&of);
        node.sh(&agent, "echo kept > /my-data/f");
        (pod, agent)
    });
    node.kill_part("control", |node| {
        let (_, agent) = &pods[0];
        assert_eq!(node.sh(agent, "cat /my-data/f"), "kept");
    });
    until_true("verbs work again", SOON, || {
        node.av(&["actor", "ls"]).is_ok()
    });
    for (pod, _) in &pods {
        node.remove_pod(pod);
    }
    for actor in ["a", "b"] {
        node.suspend(actor);
    }
    assert_eq!(node.held_mounts(), [""; 0]);
}
