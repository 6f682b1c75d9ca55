// SPDX-License-Identifier: Apache-2.0
//! Pods that have nothing to do with us.

use testkit::cri::{Annotations, ContainerSpec};

use crate::{Case, driver::Driver, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("the_node_runs_a_pod", Driver::Local, the_node_runs_a_pod)
            .without_us()
            .everywhere(),
    ]
}

/// The ground of all others: what fails here is not our doing.
fn the_node_runs_a_pod(node: &mut Node) {
    let pod = node.run_pod(&Annotations::new());
    let id = node.run(&pod, &ContainerSpec::idle("agent"));
    assert_eq!(
        node.sh(&id, "echo hello > /tmp-file; cat /tmp-file"),
        "hello"
    );
    let output = node.try_sh(&id, "echo no >&2; exit 3");
    assert_eq!((output.code, output.stderr.as_str()), (3, "no\n"));
}
