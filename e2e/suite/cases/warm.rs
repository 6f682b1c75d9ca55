// SPDX-License-Identifier: Apache-2.0
//! Warm sandboxes: the annotations are on the container, not on the pod.

use testkit::cri::{Annotations, ContainerSpec};

use super::{SHARED, create, prepare};
use crate::{Case, driver::Driver, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = on(Driver::Local, "");
    cases = cases.into_iter().map(Case::everywhere).collect();
    cases.push(
        Case::new(
            "a_container_that_failed_to_start_and_is_created_again_joins_the_publication",
            Driver::Testkit,
            a_container_that_failed_to_start_joins_the_publication,
        )
        .everywhere(),
    );
    cases
}

pub(super) fn on(driver: Driver, prefix: &str) -> Vec<Case> {
    let name = format!("{prefix}a_warm_sandbox_runs_one_actor_after_another");
    vec![Case::new(
        &name,
        driver,
        a_warm_sandbox_runs_one_actor_after_another,
    )]
}

fn a_warm_sandbox_runs_one_actor_after_another(node: &mut Node) {
    prepare(node);
    let pod = node.run_pod(&Annotations::new());
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    // What each actor finds: nothing at first, then what it left.
    let turns = [("a", ""), ("b", ""), ("a", "of-a"), ("b", "of-b")];
    for (attempt, (actor, found)) in (0..).zip(turns) {
        let annotations = node.resume(actor);
        let spec = ContainerSpec::idle("agent").attempt(attempt);
        let id = node.run(&pod, &spec.annotated(&annotations));
        assert_eq!(
            node.sh(&id, "ls -A /my-data"),
            found,
            "what actor {actor} finds"
        );
        node.sh(&id, &format!("touch /my-data/of-{actor}"));
        node.cri.stop_container(&id).expect("it stops");
        node.cri.remove_container(&id).expect("it is removed");
        node.suspend(actor);
    }
    let foreign = node.run(&pod, &ContainerSpec::idle("foreign"));
    let output = node.try_sh(&foreign, "ls /my-data");
    assert_ne!(
        output.code, 0,
        "a container without annotations sees no volume"
    );
    node.remove_pod(&pod);
}

fn a_container_that_failed_to_start_joins_the_publication(node: &mut Node) {
    prepare(node);
    let pod = node.run_pod(&Annotations::new());
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let broken = ContainerSpec::new("agent", &["/no/such/program"]).annotated(&annotations);
    let first = node.create(&pod, &broken);
    let refusal = node
        .cri
        .start_container(&first)
        .expect_err("there is no such program");
    assert!(refusal.message.contains("/no/such/program"), "{refusal}");

    let again = ContainerSpec::idle("agent")
        .attempt(1)
        .annotated(&annotations);
    let second = node.run(&pod, &again);
    assert_ne!(
        first, second,
        "a container that is created again has a new id"
    );
    node.sh(&second, "echo kept > /my-data/f");
    // The first one is cleared away only now, as a kubelet does.
    node.cri.remove_container(&first).expect("it is removed");
    assert_eq!(node.sh(&second, "cat /my-data/f"), "kept");
    assert_eq!(node.driver_calls("NodePublishVolume"), 1);
    assert_eq!(node.driver_calls("NodeUnpublishVolume"), 0);
    node.remove_pod(&pod);
}
