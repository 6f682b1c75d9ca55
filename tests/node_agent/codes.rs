// SPDX-License-Identifier: Apache-2.0
//! Each gRPC code at each call of the node: what is repeated, what is not, and
//! what the runtime is told.

use std::time::{Duration, Instant};

use testkit::csi::Fault;
use tonic::Code;

use crate::node::Node;

fn all() -> impl Iterator<Item = Code> {
    (1..=16).map(Code::from)
}

/// How often the call is made while it fails, in the time of a few repetitions.
async fn calls(node: &Node, rpc: &str, before: usize) -> usize {
    let start = Instant::now();
    loop {
        let calls = node.driver.count(rpc) - before;
        if calls >= 2 || start.elapsed() > Duration::from_millis(800) {
            return calls;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn forward(rpc: &'static str) {
    let node = Node::start().await;
    for (n, code) in all().enumerate() {
        let sandbox = node.sandbox(&format!("s{n}"), n as u64 + 1);
        let before = node.driver.count(rpc);
        node.driver.fault(rpc, Fault::fail(code));
        let refused = node.create(&sandbox, "c").await.unwrap_err().full_message();
        for part in [
            rpc,
            "CSI driver testkit.actor-volumes.dev answered",
            "retry",
        ] {
            assert!(refused.contains(part), "{part:?} is missing: {refused}");
        }
        // The very same request would get the very same answer.
        let pointless = matches!(
            code,
            Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists | Code::Unimplemented
        );
        let calls = calls(&node, rpc, before).await;
        if pointless {
            assert_eq!(calls, 1, "{rpc} {code:?}");
        } else {
            assert!(calls >= 2, "{rpc} {code:?}: {calls} calls");
        }
        // The runtime asks again, and the driver has been put right.
        node.driver.clear_faults();
        node.create_until(&sandbox, "c").await;
        node.end(&sandbox.id, "c");
        node.until_released().await;
    }
    node.finish().await;
}

async fn back(rpc: &'static str) {
    let node = Node::start().await;
    for (n, code) in all().enumerate() {
        let sandbox = node.sandbox(&format!("s{n}"), n as u64 + 1);
        node.create_until(&sandbox, "c").await;
        let before = node.driver.count(rpc);
        node.driver.fault(rpc, Fault::fail(code));
        node.end(&sandbox.id, "c");
        let calls = calls(&node, rpc, before).await;
        assert!(calls >= 2, "{rpc} {code:?}: {calls} calls");
        let held = node.agent.held(&node.key()).await.expect("it is held");
        assert!(held.contains(rpc), "{held}");
        node.driver.clear_faults();
        node.until_released().await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn each_answer_to_node_stage_has_its_consequence() {
    forward("NodeStageVolume").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn each_answer_to_node_publish_has_its_consequence() {
    forward("NodePublishVolume").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn no_answer_stops_node_unpublish_from_being_repeated() {
    back("NodeUnpublishVolume").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn no_answer_stops_node_unstage_from_being_repeated() {
    back("NodeUnstageVolume").await;
}
