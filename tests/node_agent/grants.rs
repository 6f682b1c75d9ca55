// SPDX-License-Identifier: Apache-2.0
//! Whose grant counts: signatures, audiences, times and generations.

use std::time::Duration;

use actor_volumes::{
    api::annotation,
    error::{Error, Kind},
    keys::PrivateKey,
    model::{Audience, Generation, Grant, SandboxView},
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Whose unsigned annotations are not believed.
const STRANGERS: &str = "strangers";

fn for_strangers(node: &Node, generation: u64) -> Grant {
    let mut grant = node.grant(generation);
    grant.audience = Audience::Pod {
        namespace: STRANGERS.parse().unwrap(),
        pod: None,
    };
    grant
}

/// A sandbox of that namespace with this grant, signed by the node's control plane.
fn signed(node: &Node, id: &str, namespace: &str, grant: &Grant) -> SandboxView {
    signed_by(node, id, namespace, grant, &node.keys().signing().unwrap())
}

fn signed_by(
    node: &Node,
    id: &str,
    namespace: &str,
    grant: &Grant,
    key: &PrivateKey,
) -> SandboxView {
    SandboxView {
        namespace: namespace.into(),
        annotations: annotation::write_signed(grant, |text| key.sign(text)).unwrap(),
        ..node.sandbox(id, 1)
    }
}

async fn refused(node: &Node, sandbox: &SandboxView) -> Error {
    node.create(sandbox, &format!("{}-c", sandbox.id))
        .await
        .expect_err("it is to be refused")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn only_what_a_trusted_key_signed_counts_and_a_refusal_changes_nothing() {
    let node = Node::start().await;
    let grant = for_strangers(&node, 1);
    let good = signed(&node, "s1", STRANGERS, &grant);

    let mut unsigned = good.clone();
    unsigned.annotations.remove(annotation::SIGNATURE);
    let error = refused(&node, &unsigned).await;
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(
        error.to_string().contains("node.trusted_namespaces"),
        "{error}"
    );

    let stranger = PrivateKey::generate().unwrap();
    let forged = signed_by(&node, "s1", STRANGERS, &grant, &stranger);
    let error = refused(&node, &forged).await;
    assert!(error.to_string().contains("does not trust"), "{error}");

    // A generation that nobody granted, with a signature of another grant: did it
    // count, it would shut out every grant to come.
    let mut raised = grant.clone();
    raised.volumes[0].generation = Generation(u64::MAX);
    let mut taken = good.clone();
    let written = annotation::write(&raised).unwrap();
    let attachments = written[annotation::ATTACHMENTS].clone();
    taken
        .annotations
        .insert(annotation::ATTACHMENTS.into(), attachments);
    let error = refused(&node, &taken).await;
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("has not made it"), "{error}");

    // Where no signature is needed, one that is there counts all the same.
    let mut trusted = signed(&node, "s1", "agents", &node.grant(1));
    trusted
        .annotations
        .insert(annotation::SIGNATURE.into(), "x".into());
    let error = refused(&node, &trusted).await;
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert!(error.to_string().contains("signature"), "{error}");

    // What follows the signature is not read before it.
    let mut nonsense = good.clone();
    nonsense
        .annotations
        .insert(annotation::ATTACHMENTS.into(), "{".into());
    let error = refused(&node, &nonsense).await;
    assert!(error.to_string().contains("has not made it"), "{error}");

    assert_eq!(node.records(), "", "nothing is on record");
    assert_eq!(node.driver.count("NodeStageVolume"), 0);
    node.create_until(&good, "c1").await;
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_signed_grant_counts_only_for_whom_it_is() {
    let node = Node::start().await;
    let mut elsewhere = for_strangers(&node, 1);
    elsewhere.node = "node-b".parse().unwrap();
    let mut other_pod = for_strangers(&node, 1);
    other_pod.audience = Audience::Pod {
        namespace: STRANGERS.parse().unwrap(),
        pod: Some("somebody".into()),
    };
    let mut host = for_strangers(&node, 1);
    host.audience = Audience::Host {
        node: host.node.clone(),
        container: Some("pod-s1".into()),
    };
    let mut own = other_pod.clone();
    own.audience = Audience::Pod {
        namespace: STRANGERS.parse().unwrap(),
        pod: Some("pod-s1".into()),
    };
    let theirs = for_strangers(&node, 1);
    for (grant, namespace, word) in [
        (&elsewhere, STRANGERS, "is for node node-b"),
        (&other_pod, STRANGERS, "is for pod \"somebody\""),
        (&host, STRANGERS, "for a container of the host"),
        (&theirs, "others", "pods of namespace strangers"),
        (&theirs, "agents", "pods of namespace strangers"),
    ] {
        let error = refused(&node, &signed(&node, "s1", namespace, grant)).await;
        assert_eq!(error.kind(), Kind::PermissionDenied);
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(node.records(), "");
    let pod = signed(&node, "s1", STRANGERS, &own);
    node.create_until(&pod, "c1").await;
    // A copy of it in a second pod waits as long as the first has the volume.
    let copy = signed(&node, "s2", STRANGERS, &theirs);
    let error = refused(&node, &copy).await;
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("still published"), "{error}");
    node.agent.sandbox_over("s2", "its sandbox was stopped");
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_time_limits_the_beginning_of_a_scope_and_nothing_after_it() {
    let mut node = Node::start().await;
    let mut grant = for_strangers(&node, 1);
    let end = Timestamp::now() + Duration::from_secs(5);
    grant.not_after = Some(end);
    let pod = signed(&node, "s1", STRANGERS, &grant);
    node.create_until(&pod, "c1").await;
    while Timestamp::now() <= end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its container is made anew, here and after a restart of the agent.
    node.runs("s1", "c1", false);
    node.create_until(&pod, "c2").await;
    node.shutdown.cancel();
    node.shutdown = CancellationToken::new();
    let dir = node.dir.path().to_owned();
    node.agent = Node::agent(&dir, &node.setup, &node.shutdown).await.0;
    node.create_until(&pod, "c3").await;
    let late = signed(&node, "s2", STRANGERS, &grant);
    let error = refused(&node, &late).await;
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("was to begin until"), "{error}");
    node.end("s1", "c3");
    node.until_released().await;
    let error = refused(&node, &signed(&node, "s3", STRANGERS, &grant)).await;
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_key_that_was_exchanged_counts_at_once_and_one_that_was_removed_no_more() {
    let node = Node::start().await;
    let grant = for_strangers(&node, 1);
    let before = signed(&node, "s1", STRANGERS, &grant);
    let old = node.keys().signing().unwrap();
    node.keys().rotate(None).unwrap();
    let after = signed(&node, "s1", STRANGERS, &grant);
    // It is looked for when it is met; not waited for.
    node.create_until(&after, "c1").await;
    node.create_until(&before, "c2").await;
    node.keys().remove(old.public().id()).unwrap();
    node.until("the old key does not count", async || {
        let tried = node.create(&before, "c3").await;
        tried.is_err_and(|e| e.to_string().contains("does not trust"))
    })
    .await;
    node.create_until(&after, "c4").await;
    node.end("s1", "c4");
    node.finish().await;
}
