// SPDX-License-Identifier: Apache-2.0
//! Containers that run without the volume that they ask for.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use actor_volumes::{model::SandboxView, node::Breach};
use serde_json::{Value, json};

use crate::node::{Node, Over, SOON, Setup};

/// The runtime made a container, with these mounts, and asked nobody.
fn made(node: &Node, sandbox: &SandboxView, container: &str, mounts: Value) {
    node.runtime.set(|lists| {
        let pod = (
            sandbox.namespace.clone(),
            sandbox.name.clone(),
            sandbox.annotations.clone(),
        );
        lists.pods.insert(sandbox.id.clone(), pod);
        let spec = ("agent".to_owned(), json!({ "mounts": mounts }));
        lists.specs.insert(container.into(), spec);
    });
    node.runs(&sandbox.id, container, true);
}

fn bind(source: &Path, options: &[&str]) -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/my-data", "type": "bind", "source": source, "options": options},
    ])
}

async fn until(node: &Node, is_so: impl Fn(&[Breach]) -> bool) -> Vec<Breach> {
    let start = Instant::now();
    loop {
        let found = node.agent.breaches();
        if is_so(&found) {
            return found;
        }
        assert!(start.elapsed() < SOON, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn asked(node: &Node, container: &str) -> u32 {
    node.runtime
        .set(|lists| lists.asked.get(container).copied().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_container_that_runs_without_its_volume_is_found_and_named() {
    let node = Node::start().await;
    let good = node.sandbox("s1", 1);
    let source = node.create_until(&good, "c1").await;
    made(&node, &good, "c1", bind(&source, &["rbind", "rw"]));
    // Of a pod that is not ours nothing is asked.
    let mut foreign = node.sandbox("s2", 1);
    foreign.annotations.clear();
    made(&node, &foreign, "c2", json!([]));
    let bad = node.sandbox("s3", 1);
    made(&node, &bad, "c3", json!([]));

    let found = until(&node, |found| !found.is_empty()).await;
    let breach = &found[0];
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&*breach.container, &*breach.name, &*breach.pod),
        ("c3", "agent", "agents/pod-s3")
    );
    assert!(breach.why.contains("/my-data"), "{breach:?}");
    let counted = |name: &str| {
        let text = node.metrics.text().unwrap();
        let line = text.lines().find(|l| l.starts_with(name));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        counted("actor_volumes_node_containers_without_volumes "),
        "1"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A specification does not change: it is read once.
    assert_eq!(
        ["c1", "c2", "c3"].map(|c| asked(&node, c)),
        [1, 0, 1],
        "after several looks"
    );
    assert_eq!(
        counted("actor_volumes_node_containers_found_without_volumes_total "),
        "1"
    );
    node.runtime.set(|lists| assert!(lists.stopped.is_empty()));

    node.runs("s3", "c3", false);
    until(&node, <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn another_mount_at_its_place_is_not_the_volume() {
    let node = Node::start().await;
    let pod = node.sandbox("s1", 1);
    let source = node.create_until(&pod, "c1").await;
    made(&node, &pod, "c1", bind(&source, &["rbind", "rw"]));
    made(&node, &pod, "c2", bind(Path::new("/tmp"), &["rbind"]));
    made(&node, &pod, "c3", bind(&source, &["rbind", "ro"]));
    // The place of the volume in another sandbox.
    let other = node.sandbox("s2", 1);
    made(&node, &other, "c4", bind(&source, &["rbind", "rw"]));
    let found = until(&node, |found| found.len() == 3).await;
    let found: Vec<_> = found.iter().map(|b| &*b.container).collect();
    assert_eq!(found, ["c2", "c3", "c4"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn its_sandbox_is_stopped_where_the_configuration_says_so() {
    let setup = Setup {
        stop_breaches: true,
        ..Setup::default()
    };
    let node = Node::over(Over::Bind, setup, |_| ()).await;
    let good = node.sandbox("s1", 1);
    let source = node.create_until(&good, "c1").await;
    made(&node, &good, "c1", bind(&source, &["rbind", "rw"]));
    let bad = node.sandbox("s2", 1);
    made(&node, &bad, "c2", json!([]));
    let start = Instant::now();
    while node.runtime.set(|lists| lists.stopped.is_empty()) {
        assert!(start.elapsed() < SOON, "it is never stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(&node, <[_]>::is_empty).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.runtime.set(|lists| {
        assert_eq!(lists.stopped, ["s2"]);
        assert!(lists.containers.contains_key("c1"));
    });
}
