// SPDX-License-Identifier: Apache-2.0
//! The guard in runc's place: whatever becomes of the plugin, no container runs
//! without the volume that it asks for. And what happens where there is none.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{SHARED, create, prepare, runs_in_the_end};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, REQUEST_TIMEOUT, SOON},
    note,
    setup::setup,
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Testkit, run).everywhere();
    vec![
        case(
            "through_the_guard_all_runs_that_should",
            all_runs_that_should,
        )
        .guarded(),
        case(
            "the_guard_refuses_while_the_plugin_is_stopped",
            the_plugin_is_stopped,
        )
        .guarded(),
        case("the_guard_refuses_while_the_plugin_hangs", the_plugin_hangs).guarded(),
        case(
            "the_guard_refuses_what_a_slow_plugin_missed",
            the_plugin_is_slow,
        )
        .guarded(),
        case(
            "the_guard_refuses_what_a_plugin_died_of",
            the_plugin_dies_in_the_request,
        )
        .guarded(),
        case(
            "without_the_guard_a_container_runs_without_its_volume",
            the_hole_is_real,
        ),
        Case::new("what_the_guard_costs", Driver::Local, what_it_costs)
            .guarded()
            .alone(),
    ]
}

/// A pod that asks for the volume, or a warm sandbox whose container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Sandbox,
    Container,
}

const BOTH: [Scope; 2] = [Scope::Sandbox, Scope::Container];

impl Scope {
    /// The pod and the container of an actor.
    fn of(self, node: &mut Node, annotations: &Annotations) -> (Pod, ContainerSpec) {
        let agent = ContainerSpec::idle("agent");
        match self {
            Self::Sandbox => (node.run_pod(annotations), agent),
            Self::Container => (
                node.run_pod(&Annotations::new()),
                agent.annotated(annotations),
            ),
        }
    }
}

/// The container is created or not; it is not started. What was said about it.
fn refused(node: &Node, pod: &Pod, spec: &ContainerSpec) -> String {
    match node.cri.create_container(pod, spec) {
        Err(refusal) => refusal.message,
        Ok(id) => refused_at_start(node, &id),
    }
}

fn refused_at_start(node: &Node, id: &str) -> String {
    let refusal = node.cri.start_container(id).expect_err("it has no volume");
    let (status, _) = node.cri.container_status(id).expect("it is there");
    assert_ne!(status.state, RUNNING, "a refused container runs");
    node.cri.remove_container(id).expect("it is removed");
    refusal.message
}

fn by_the_guard(message: &str) {
    assert!(
        message.contains("actor-volumes: container \"agent\" is not made"),
        "the reason reaches who started it: {message}"
    );
}

/// CONTAINER_RUNNING of the CRI.
const RUNNING: i32 = 1;

/// It works again: the volume is there.
fn works(node: &mut Node, pod: &Pod, spec: &ContainerSpec) {
    let id = node.run(pod, &spec.clone().attempt(1));
    node.sh(&id, "touch /my-data/works");
    node.remove_pod(pod);
}

fn all_runs_that_should(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        let (pod, spec) = scope.of(node, &annotations);
        let agent = node.run(&pod, &spec);
        node.sh(&agent, "echo kept >> /my-data/f");
        let foreign = node.run_pod(&Annotations::new());
        let main = node.run(&foreign, &ContainerSpec::idle("main"));
        assert_eq!(node.sh(&main, "echo out; exit 0"), "out");
        assert_eq!(node.try_sh(&main, "exit 42").code, 42);
        // Also while our daemon is away: exec and signals need none, nor do others.
        node.kill_serve();
        assert_eq!(node.try_sh(&agent, "exit 43").code, 43);
        let other = node.run(&foreign, &ContainerSpec::idle("other"));
        node.cri.stop_container(&other).expect("it stops");
        node.remove_pod(&foreign);
        node.start_serve();
        node.cri.stop_container(&agent).expect("it stops");
        let again = node.run(&pod, &spec.attempt(1));
        node.sh(&again, "grep -q kept /my-data/f");
        node.remove_pod(&pod);
        node.suspend("a");
    }
}

fn the_plugin_is_stopped(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        let (pod, spec) = scope.of(node, &annotations);
        node.kill_serve();
        let said = refused(node, &pod, &spec);
        assert!(said.contains("actor-volumes"), "{said}");
        // The validator of 2.3 looks at annotations of pods alone.
        if node.version != "2.3" || scope == Scope::Container {
            by_the_guard(&said);
        }
        node.start_serve();
        works(node, &pod, &spec);
        node.suspend("a");
    }
}

fn the_plugin_hangs(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        let (pod, spec) = scope.of(node, &annotations);
        let connections = node.connections();
        node.freeze_serve(true);
        // The very request on which it hangs passes the validator too.
        let created = node.cri.create_container(&pod, &spec);
        let id = created.expect("the runtime goes on without the plugin");
        by_the_guard(&refused_at_start(node, &id));
        // The plugin is dropped by now.
        let said = refused(node, &pod, &spec.clone().attempt(1));
        assert!(said.contains("actor-volumes"), "{said}");
        node.freeze_serve(false);
        node.wait_for_plugin(connections);
        // One that has its mount, and whose agent hangs when it is made.
        let spec = spec.attempt(2);
        let id = node.create(&pod, &spec);
        node.freeze_serve(true);
        let said = refused_at_start(node, &id);
        by_the_guard(&said);
        assert!(said.contains("did not answer within"), "{said}");
        node.freeze_serve(false);
        let id = runs_in_the_end(node, &pod, &spec);
        node.sh(&id, "touch /my-data/works");
        node.remove_pod(&pod);
        node.suspend("a");
    }
}

fn the_plugin_is_slow(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        let (pod, spec) = scope.of(node, &annotations);
        let connections = node.connections();
        node.freeze_serve(true);
        let created = node.cri.create_container(&pod, &spec);
        let id = created.expect("the runtime goes on without the plugin");
        // By now it has answered, and the agent believes that the container has
        // the mount. What counts is what the runtime is about to make.
        node.freeze_serve(false);
        node.wait_for_plugin(connections);
        let said = refused_at_start(node, &id);
        by_the_guard(&said);
        assert!(said.contains("too late"), "{said}");
        works(node, &pod, &spec);
        node.suspend("a");
    }
}

fn the_plugin_dies_in_the_request(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        node.driver_delay("NodePublishVolume", REQUEST_TIMEOUT);
        let before = node.driver_calls("NodePublishVolume");
        let (pod, spec) = scope.of(node, &annotations);
        let cri = node.cri.clone();
        let creating = thread::spawn({
            let (pod, spec) = (pod.clone(), spec.clone());
            move || cri.create_container(&pod, &spec)
        });
        until_true("the plugin waits for the driver", SOON, || {
            node.driver_calls("NodePublishVolume") > before
        });
        // The request may still be on its way where publishing began before it.
        thread::sleep(Duration::from_millis(300));
        node.kill_serve();
        let said = match creating.join().expect("the thread ends") {
            Ok(id) => refused_at_start(node, &id),
            Err(refusal) => refusal.message,
        };
        assert!(!said.is_empty());
        node.driver_well();
        node.start_serve();
        works(node, &pod, &spec);
        node.suspend("a");
    }
}

fn the_hole_is_real(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    for scope in BOTH {
        let annotations = node.resume("a");
        let (pod, spec) = scope.of(node, &annotations);
        let connections = node.connections();
        node.freeze_serve(true);
        let id = node.run(&pod, &spec);
        let output = node.try_sh(&id, "ls -d /my-data");
        assert_ne!(output.code, 0, "it runs, and its volume is not there");
        node.freeze_serve(false);
        node.wait_for_plugin(connections);
        node.remove_pod(&pod);
        node.suspend("a");
    }
    // A plugin that is away: the validator of 2.3 refuses, by the pod alone.
    let annotations = node.resume("a");
    node.kill_serve();
    for scope in BOTH {
        let (pod, spec) = scope.of(node, &annotations);
        let created = node.cri.create_container(&pod, &spec);
        let closed = node.version == "2.3" && scope == Scope::Sandbox;
        assert_eq!(created.is_err(), closed, "{scope:?}: {created:?}");
        node.remove_pod(&pod);
    }
    node.start_serve();
}

/// Not judged: machines differ. A call that is no creation costs one execve.
fn what_it_costs(node: &mut Node) {
    let runc = setup().tool("runc").expect("every node has runc");
    let median = |program: &std::path::Path| {
        let mut took: Vec<Duration> = (0..101)
            .map(|_| {
                let start = Instant::now();
                let output = Command::new(program)
                    .env("ACTOR_VOLUMES_CONFIG", node.dir.join("config.toml"))
                    .arg("--version")
                    .output()
                    .expect("it starts");
                assert!(output.status.success(), "{output:?}");
                start.elapsed()
            })
            .collect();
        took.sort();
        took[took.len() / 2]
    };
    let bare = median(&runc.join("runc"));
    let guarded = median(&node.dir.join("actor-volumes-runtime"));
    note(format!(
        "guard: runc --version takes {bare:.1?} bare and {guarded:.1?} through the guard, {:.2} times (medians of 101)",
        guarded.as_secs_f64() / bare.as_secs_f64()
    ));
}
