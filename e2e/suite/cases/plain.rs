// SPDX-License-Identifier: Apache-2.0
//! Pods that have nothing to do with us.

use serde_json::Value;
use testkit::cri::{Annotations, ContainerSpec};

use crate::{
    Case,
    driver::Driver,
    node::{Node, Options},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("the_node_runs_a_pod", Driver::Local, the_node_runs_a_pod)
            .without_us()
            .everywhere(),
        Case::new(
            "a_foreign_pod_gets_the_spec_that_it_has_without_the_plugin",
            Driver::Local,
            a_foreign_pod_gets_the_spec_that_it_has_without_the_plugin,
        )
        .everywhere(),
    ]
}

/// The ground of all others: what fails here is not our doing.
fn the_node_runs_a_pod(node: &mut Node) {
    let pod = node.run_pod(&Annotations::new());
    let id = node.run(&pod, &ContainerSpec::idle("agent"));
    assert_eq!(node.sh(&id, "echo hello > /a-file; cat /a-file"), "hello");
    let output = node.try_sh(&id, "echo no >&2; exit 3");
    assert_eq!((output.code, output.stderr.as_str()), (3, "no\n"));
}

fn a_foreign_pod_gets_the_spec_that_it_has_without_the_plugin(node: &mut Node) {
    let mut bare = Node::start(
        &node.version,
        Options {
            driver: None,
            ..node.options
        },
    );
    let [with, without] = [node, &mut bare].map(specs_of_a_foreign_pod);
    assert!(
        with[1]["process"]["args"].is_array(),
        "a spec was read: {}",
        with[1]
    );
    for (with, without) in with.iter().zip(&without) {
        // Compared as text: a difference is then shown line by line.
        let [with, without] =
            [with, without].map(|s| serde_json::to_string_pretty(s).unwrap_or_default());
        let differing = with.lines().zip(without.lines()).filter(|(a, b)| a != b);
        let differing: Vec<_> = differing.collect();
        assert!(with == without, "the specs differ: {differing:#?}");
    }
    let left = bare.finish();
    assert!(
        left.is_empty(),
        "left by the node without the plugin: {left:?}"
    );
}

/// The specs of a sandbox and of its container, with ids and directories
/// replaced by words.
fn specs_of_a_foreign_pod(node: &mut Node) -> [Value; 2] {
    let mut annotations = Annotations::new();
    annotations.insert("example.com/something".to_owned(), "else".to_owned());
    let pod = node.run_pod(&annotations);
    let mut spec = ContainerSpec::idle("agent").annotated(&annotations);
    spec.mounts.push(testkit::cri::HostMount {
        source: node.dir.join("tmp"),
        destination: "/a-mount-of-its-own".to_owned(),
    });
    let id = node.run(&pod, &spec);
    let (_, sandbox) = node.cri.pod_status(&pod.id).expect("the sandbox runs");
    let (_, container) = node.cri.container_status(&id).expect("the container runs");
    let dir = node.dir.display().to_string();
    let (_, cgroup) = node
        .cgroup_parent
        .rsplit_once('/')
        .expect("it begins with a slash");
    [sandbox, container].map(|info| {
        let text = info["runtimeSpec"]
            .to_string()
            .replace(&pod.id, "POD")
            .replace(&id, "CONTAINER")
            .replace(cgroup, "CGROUP")
            .replace(&format!("{dir}/"), "DIR/");
        serde_json::from_str(&without_pids(&text))
            .unwrap_or_else(|e| panic!("not JSON: {e}: {text}"))
    })
}

/// Namespaces of the pod are named by the pid of its first process.
fn without_pids(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split("/proc/").enumerate() {
        if i > 0 {
            out.push_str("/proc/");
        }
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.starts_with("/ns/") {
            out.push_str("PID");
            out.push_str(rest);
        } else {
            out.push_str(part);
        }
    }
    out
}
