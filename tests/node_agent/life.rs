// SPDX-License-Identifier: Apache-2.0
//! A volume's life on the node: published once, released once nobody uses it.

use std::time::Duration;

use actor_volumes::{error::Kind, model::Generation};
use testkit::csi::Fault;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::node::{Elsewhere, Node};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_sandbox_is_published_at_its_start_and_released_at_its_end() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    let target = node.create_until(&sandbox, "c1").await;
    std::fs::write(target.join("f"), "kept").unwrap();
    // A restarted container joins the same publication.
    node.agent.container_gone("s1", "c1");
    assert_eq!(node.create_until(&sandbox, "c2").await, target);
    assert_eq!(node.driver.count("NodePublishVolume"), 1);

    node.agent.container_gone("s1", "c2");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.until_released().await;
    assert!(!target.exists());

    let next = node.sandbox("s2", 2);
    let target = node.create_until(&next, "c3").await;
    assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "kept");
    node.agent.container_gone("s2", "c3");
    node.agent.sandbox_over("s2", "its sandbox was removed");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_older_or_revoked_generation_is_refused_also_after_a_restart() {
    let mut node = Node::start().await;
    let sandbox = node.sandbox("s1", 2);
    node.create_until(&sandbox, "c1").await;
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.until_released().await;
    node.agent.revoke(&node.key(), Generation(3)).await.unwrap();
    for _ in 0..2 {
        for generation in [1, 2, 3] {
            let late = node.sandbox("s2", generation);
            let refusal = node.create(&late, "c2").await.unwrap_err();
            assert_eq!(refusal.kind(), Kind::FailedPrecondition, "{refusal:?}");
        }
        node.shutdown.cancel();
        node.shutdown = CancellationToken::new();
        node.agent = Node::agent(node.dir.path(), &node.setup, &node.shutdown)
            .await
            .0;
    }
    let current = node.sandbox("s3", 4);
    node.create_until(&current, "c3").await;
    node.agent.container_gone("s3", "c3");
    node.agent.sandbox_over("s3", "its sandbox was stopped");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_second_sandbox_with_the_same_grant_waits_for_the_first() {
    let node = Node::start().await;
    let first = node.sandbox("s1", 1);
    node.create_until(&first, "c1").await;
    let second = node.sandbox("s2", 1);
    let refusal = node.create(&second, "c2").await.unwrap_err();
    assert_eq!(refusal.kind(), Kind::Unavailable);
    assert!(refusal.full_message().contains("sandbox s1"), "{refusal:?}");
    assert_eq!(node.driver.count("NodePublishVolume"), 1);

    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.create_until(&second, "c3").await;
    node.agent.container_gone("s2", "c3");
    node.agent.sandbox_over("s2", "its sandbox was stopped");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn nothing_is_unpublished_while_a_process_has_the_volume_mounted() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    let inside = node.dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    // As a container: the volume at a path of its own.
    let container = Elsewhere::start("mount --bind \"$1\" \"$2\";", &[&target, &inside]);
    // Every event says that it is over.
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.agent.revoke(&node.key(), Generation(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    let held = node.agent.held(&node.key()).await.unwrap();
    assert!(held.contains(&container.0.id().to_string()), "{held}");
    drop(container);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn release_waits_for_a_namespace_that_took_a_copy_of_the_mounts() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    let copy = Elsewhere::start("", &[]);
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = node.agent.held(&node.key()).await;
    assert!(
        held.is_some_and(|h| h.contains("has it at")),
        "it is said to be released"
    );
    drop(copy);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_lost_answer_or_a_failing_driver_is_met_with_the_same_request_again() {
    let node = Node::start().await;
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        node.driver.fault(method, Fault::lose_answer().times(1));
    }
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        node.driver.fault(method, Fault::lose_answer().times(1));
    }
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.finish().await;
}

/// Both teardown calls of a driver that keeps nothing in mind.
const UNDO: [&str; 2] = ["NodeUnpublishVolume", "NodeUnstageVolume"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn not_found_for_a_mount_that_is_gone_is_the_end_of_a_release() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in UNDO {
        node.driver.fault(method, Fault::fail_after(Code::NotFound));
    }
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn not_found_for_a_mount_that_is_there_releases_nothing() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in UNDO {
        node.driver.fault(method, Fault::fail(Code::NotFound));
    }
    node.end("s1", "c1");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = node.agent.held(&node.key()).await;
    assert!(held.is_some(), "it is said to be released");
    assert_eq!(node.driver.count("NodeUnstageVolume"), 0);
    node.driver.clear_faults();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_scope_whose_end_no_event_told_is_found_in_two_listings() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    // A runtime that does not answer proves nothing.
    node.runtime.set(|lists| {
        lists.sandboxes.clear();
        lists.down = true;
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    node.runtime.set(|lists| lists.down = false);
    node.finish().await;
}
