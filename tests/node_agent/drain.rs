// SPDX-License-Identifier: Apache-2.0
//! A node that is being emptied.

use tokio_util::sync::CancellationToken;

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_node_that_is_drained_takes_no_new_pods_and_keeps_those_it_has() {
    let mut node = Node::start().await;
    let pod = node.sandbox("s1", 1);
    let source = node.create_until(&pod, "c1").await;
    node.runs("s1", "c1", true);
    node.agent.set_draining(true).await.unwrap();
    node.agent.set_draining(true).await.unwrap();
    assert_eq!(node.metric("actor_volumes_node_draining "), Some(1));
    let blockers = node.agent.blockers().await;
    assert_eq!(blockers.len(), 1);
    assert!(blockers[0].held_by.as_ref().unwrap().contains("pod-s1"));

    // A container of the pod that is there is started again.
    node.runs("s1", "c1", false);
    assert_eq!(node.create_until(&pod, "c2").await, source);
    node.runs("s1", "c2", true);
    // A new pod is refused, and leaves nothing.
    let late = node.sandbox("s2", 1);
    let refused = node.create(&late, "c3").await.unwrap_err().to_string();
    assert!(refused.contains("is being drained"), "{refused}");
    assert!(refused.contains("node uncordon"), "{refused}");
    assert!(!node.records().contains("s2"));

    node.end("s1", "c2");
    node.until_released().await;
    assert!(node.agent.blockers().await.is_empty());
    // A restart does not end it.
    node.shutdown.cancel();
    let shutdown = CancellationToken::new();
    let (agent, ..) = Node::agent(node.dir.path(), &node.setup, &shutdown).await;
    assert!(agent.is_draining());
    agent.set_draining(false).await.unwrap();
    node.agent = agent;
    node.create_until(&late, "c4").await;
    node.end("s2", "c4");
    node.until_released().await;
}
