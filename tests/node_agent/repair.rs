// SPDX-License-Identifier: Apache-2.0
//! File systems whose server dies or hangs.

use std::{
    fs,
    time::{Duration, Instant},
};

use testkit::csi::FuseOrder;

use crate::node::{Node, Over, Setup};

const CORRUPTED: &str = "actor_volumes_node_corrupted_mounts_total";

async fn start(setup: Setup) -> Node {
    Node::over(Over::Fuse, setup, |_| ()).await
}

fn order(node: &Node, order: FuseOrder) {
    node.driver.fuse(&node.volume.volume_id, order).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_dead_mount_that_nobody_uses_is_made_anew_for_the_next_container() {
    let node = start(Setup::default()).await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    fs::write(target.join("f"), "kept").unwrap();
    node.runs("s1", "c1", false);
    order(&node, FuseOrder::Kill);
    node.until("the mount is dead", async || fs::metadata(&target).is_err())
        .await;
    let target = node.create_until(&sandbox, "c2").await;
    assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "kept");
    assert_eq!(node.metric(CORRUPTED), Some(1));
    assert_eq!(node.driver.count("NodeStageVolume"), 2);
    node.end("s1", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_dead_mount_in_use_is_reported_and_left_alone_until_it_is_not() {
    let setup = Setup {
        probe_interval: Duration::from_millis(300),
        ..Setup::default()
    };
    let node = start(setup).await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    node.runs("s1", "c1", true);
    order(&node, FuseOrder::Kill);
    node.until("it is visible", async || {
        let held = node.agent.held(&node.key()).await.unwrap();
        held.contains("container c1 is running: it is left as it is")
    })
    .await;
    assert_eq!(node.metric(CORRUPTED), Some(1));
    let refused = node.create(&sandbox, "c2").await.unwrap_err();
    let text = refused.full_message();
    assert!(text.contains("container c1 is running"), "{text}");
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    // Nobody creates a container: its end alone sets off the repair.
    node.runs("s1", "c1", false);
    node.until("it is made anew", async || {
        node.driver.count("NodePublishVolume") == 2
    })
    .await;
    let target = node.create_until(&sandbox, "c3").await;
    fs::write(target.join("f"), "x").unwrap();
    node.end("s1", "c3");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_dead_mount_is_released_at_the_end_of_its_scope() {
    let node = start(Setup::default()).await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    order(&node, FuseOrder::Kill);
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_mount_that_hangs_is_given_to_nobody_and_hangs_nothing() {
    let node = start(Setup::default()).await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    node.runs("s1", "c1", false);
    order(&node, FuseOrder::Freeze);
    // In time for the runtime; a busy machine may hold up one answer, not each.
    let mut answers = Vec::new();
    let refused = loop {
        let begun = Instant::now();
        let refused = node.create(&sandbox, "c2").await.unwrap_err();
        answers.push(begun.elapsed());
        if answers.last() < Some(&Duration::from_millis(1_900)) {
            break refused;
        }
        assert!(answers.len() < 5, "{answers:?}");
    };
    let text = refused.full_message();
    assert!(text.contains("does not answer"), "{text}");
    let stuck = node.agent.stuck().await;
    assert_eq!(stuck.len(), 1, "{stuck:?}");
    assert!(stuck[0].what.contains("does not answer"), "{stuck:?}");
    order(&node, FuseOrder::Thaw);
    node.create_until(&sandbox, "c3").await;
    assert!(node.agent.stuck().await.is_empty());
    assert_eq!(node.driver.count("NodePublishVolume"), 1);
    node.end("s1", "c3");
    node.finish().await;
}
