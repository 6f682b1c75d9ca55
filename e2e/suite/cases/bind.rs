// SPDX-License-Identifier: Apache-2.0
//! Late bind: a container of a warm pod, which runs already, serves one actor after
//! another.

use std::fs;

use testkit::cri::{Annotations, ContainerSpec};

use super::{SHARED, create, prepare};
use crate::{Case, driver::Driver, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_container_that_runs_in_a_pod_serves_one_actor_after_another",
            Driver::Local,
            a_container_that_runs_serves_one_actor_after_another,
        )
        .everywhere(),
    ]
}

fn a_container_that_runs_serves_one_actor_after_another(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    create(node, "b", SHARED);
    let pod = node.run_pod(&Annotations::new());
    let id = node.run(&pod, &ContainerSpec::idle("agent"));
    let task = "state/io.containerd.runtime.v2.task/k8s.io";
    let bundle = node.dir.join(task).join(&id);
    let pid = fs::read_to_string(bundle.join("init.pid")).expect("the shim writes it");
    let (bundle, pid) = (bundle.display().to_string(), pid.trim().to_owned());
    let config = node.dir.join("config.toml").display().to_string();
    let granted = node.dir.join("tmp/granted.json");
    let file = granted.display().to_string();
    let at = ["--pid", &pid, "--bundle", &bundle, "--config", &config];
    // What each actor finds: nothing at first, then what it left.
    for (actor, found) in [("a", ""), ("b", ""), ("a", "of-a"), ("b", "of-b")] {
        let annotations = node.resume(actor);
        let text = serde_json::to_string(&annotations).expect("a map of text");
        fs::write(&granted, text).expect("the node's directory takes files");
        node.must(&[&["bind", &id, "--annotations", &file], &at[..]].concat());
        let seen = node.sh(&id, "ls -A /my-data");
        assert_eq!(seen, found, "what actor {actor} finds");
        node.sh(&id, &format!("touch /my-data/of-{actor}"));
        node.must(&[&["unbind", &id], &at[..]].concat());
        assert_eq!(node.sh(&id, "ls -A /my-data"), "", "it is taken away");
        node.suspend(actor);
    }
    // A grant that is over is good for nothing, and the container as it was.
    let refused = node.av(&[&["bind", &id, "--annotations", &file], &at[..]].concat());
    let why = refused.expect_err("the actor is suspended");
    assert!(
        why.contains("is suspended") || why.contains("is over"),
        "{why}"
    );
    assert_eq!(node.sh(&id, "ls -A /my-data"), "");
    node.remove_pod(&pod);
}
