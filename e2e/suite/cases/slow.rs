// SPDX-License-Identifier: Apache-2.0
//! A driver that takes longer than the runtime waits for a plugin.

use std::time::Instant;

use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare};
use crate::{
    Case,
    driver::Driver,
    node::{Node, REQUEST_TIMEOUT, is_retryable},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_driver_slower_than_the_runtime_is_waited_for_by_retries",
            Driver::Testkit,
            a_driver_slower_than_the_runtime_is_waited_for_by_retries,
        )
        .everywhere(),
    ]
}

fn a_driver_slower_than_the_runtime_is_waited_for_by_retries(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    node.driver_delay("NodePublishVolume", 2 * REQUEST_TIMEOUT);
    let connections = node.connections();
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("agent");
    let asked = Instant::now();
    let refusal = node
        .cri
        .create_container(&pod, &spec)
        .expect_err("the driver is slow");
    let waited = asked.elapsed();
    assert!(waited < REQUEST_TIMEOUT, "refused only after {waited:?}");
    assert!(is_retryable(&refusal), "{refusal}");

    let agent = node.run(&pod, &spec);
    node.sh(&agent, "echo here > /my-data/f");
    assert_eq!(
        node.driver_calls("NodePublishVolume"),
        1,
        "one publish served all tries"
    );
    assert_eq!(
        node.connections(),
        connections,
        "the plugin stayed connected"
    );
    node.driver_well();
    node.remove_pod(&pod);
}
