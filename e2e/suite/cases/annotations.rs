// SPDX-License-Identifier: Apache-2.0
//! Annotations that cannot be served fail their container, and nobody else's.

use testkit::cri::{Annotations, ContainerSpec, PodSpec};

use super::{SHARED, create, prepare};
use crate::{
    Case,
    driver::Driver,
    node::{NAMESPACE, Node},
    setup::setup,
};

const ACTOR: &str = "actor-volumes.dev/actor";
const ATTACHMENTS: &str = "actor-volumes.dev/attachments";
const SIGNATURE: &str = "actor-volumes.dev/signature";

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Local, run).everywhere();
    let mut cases = vec![
        case(
            "an_annotation_that_can_not_be_served_fails_the_container",
            an_annotation_that_can_not_be_served_fails_the_container,
        ),
        case(
            "unsigned_annotations_of_an_untrusted_namespace_are_refused",
            unsigned_annotations_of_an_untrusted_namespace_are_refused,
        ),
    ];
    // Older versions have no default validator.
    if setup().main_version == "2.3" {
        cases.push(Case::new(
            "while_our_daemon_is_away_only_pods_with_volumes_are_refused",
            Driver::Local,
            while_our_daemon_is_away_only_pods_with_volumes_are_refused,
        ));
    }
    cases
}

fn while_our_daemon_is_away_only_pods_with_volumes_are_refused(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    node.kill_serve();
    let pod = node.run_pod(&annotations);
    let refusal = node
        .cri
        .create_container(&pod, &ContainerSpec::idle("agent"))
        .expect_err("its volume cannot be mounted");
    assert!(refusal.message.contains("actor-volumes"), "{refusal}");
    let foreign = node.run_pod(&Annotations::new());
    node.run(&foreign, &ContainerSpec::idle("main"));
    node.start_serve();
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
    node.remove_pod(&foreign);
}

fn an_annotation_that_can_not_be_served_fails_the_container(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let good = node.resume("a");
    let with = |key: &str, value: &str| {
        let mut changed = good.clone();
        changed.insert(key.to_owned(), value.to_owned());
        changed
    };
    let without = |key: &str| {
        let mut changed = good.clone();
        changed.remove(key);
        changed
    };
    let attachments = &good[ATTACHMENTS];
    let newer = attachments.replacen("\"generation\":1", "\"generation\":2", 1);
    assert_ne!(
        *attachments, newer,
        "the first generation is 1: {attachments}"
    );
    let elsewhere = attachments.replacen("node-a", "node-b", 1);
    // What is wrong, the annotations, and what the message must name.
    let wrong = [
        (
            "broken JSON",
            with(ATTACHMENTS, "{\"version\":1,"),
            "attachments",
        ),
        (
            "an unknown key",
            with("actor-volumes.dev/frobnicate", "yes"),
            "frobnicate",
        ),
        (
            "another actor",
            with(ACTOR, "agents/somebody-else"),
            "somebody-else",
        ),
        ("no attachments", without(ATTACHMENTS), "attachments"),
        ("no actor", without(ACTOR), "actor"),
        (
            "a generation of its own making",
            with(ATTACHMENTS, &newer),
            "resume",
        ),
        ("another node", with(ATTACHMENTS, &elsewhere), "signature"),
    ];
    for (what, annotations, named) in wrong {
        let pod = node.run_pod(&annotations);
        refuse(node, &pod, what, named);
        // On a container they count the same.
        let warm = node.run_pod(&Annotations::new());
        let spec = ContainerSpec::idle("agent").annotated(&annotations);
        let refusal = node.cri.create_container(&warm, &spec).expect_err(what);
        assert!(refusal.message.contains(named), "{what}: {refusal}");
        // The rest of the sandbox, and of the node, goes on.
        node.run(&warm, &ContainerSpec::idle("other"));
        node.remove_pod(&warm);
        node.remove_pod(&pod);
    }
    // And the good ones still count.
    let (pod, agent) = node.run_agent(&good);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn unsigned_annotations_of_an_untrusted_namespace_are_refused(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume_with("a", &["--pod-namespace", "strangers"]);
    let mut unsigned = annotations.clone();
    unsigned.remove(SIGNATURE);
    let spec = PodSpec::new("strangers", "stranger").annotated(&unsigned);
    let pod = node.cri.run_pod(&spec).expect("the sandbox itself runs");
    refuse(node, &pod, "an untrusted namespace", "strangers");
    node.remove_pod(&pod);
    // Nor does the grant for that namespace count in another.
    let pod = node.run_pod(&annotations);
    refuse(node, &pod, "another audience", NAMESPACE);
    node.remove_pod(&pod);
    assert_eq!(node.held_mounts(), [""; 0], "nothing was mounted for them");
    // Signed, and in its own, it does.
    let spec = PodSpec::new("strangers", "signed").annotated(&annotations);
    let pod = node.cri.run_pod(&spec).expect("the sandbox itself runs");
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
    // Where the namespace is trusted no signature is needed; its audience counts.
    node.kill_serve();
    node.configure(
        "member_grace_ms",
        "trusted_namespaces = [\"strangers\"]\nmember_grace_ms",
    );
    node.start_serve();
    let spec = PodSpec::new("strangers", "trusted").annotated(&unsigned);
    let pod = node.cri.run_pod(&spec).expect("the sandbox itself runs");
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    node.sh(&agent, "test -f /my-data/f");
    node.remove_pod(&pod);
}

/// The container must be refused with a message that names the culprit.
fn refuse(node: &Node, pod: &testkit::cri::Pod, what: &str, named: &str) {
    let refusal = node
        .cri
        .create_container(pod, &ContainerSpec::idle("agent"))
        .expect_err(what);
    assert!(refusal.message.contains(named), "{what}: {refusal}");
}
