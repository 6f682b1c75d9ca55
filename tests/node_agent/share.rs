// SPDX-License-Identifier: Apache-2.0
//! Several scopes of one node at once, where the access mode allows it.

use std::{fs, io, time::Duration};

use actor_volumes::model::AccessMode;

use crate::node::{Elsewhere, Node, Over, Setup};

async fn start(access_mode: AccessMode) -> Node {
    let setup = Setup {
        access_mode,
        ..Setup::default()
    };
    Node::over(Over::Bind, setup, |_| ()).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn two_sandboxes_share_a_volume_whose_staging_outlives_the_first() {
    let node = start(AccessMode::MultiNodeMultiWriter).await;
    let (first, second) = (node.sandbox("s1", 1), node.sandbox("s2", 1));
    let one = node.create_until(&first, "c1").await;
    let two = node.create_until(&second, "c2").await;
    assert_ne!(one, two);
    fs::write(one.join("f"), "shared").unwrap();
    assert_eq!(fs::read_to_string(two.join("f")).unwrap(), "shared");
    assert_eq!(node.driver.count("NodeStageVolume"), 1);

    node.end("s1", "c1");
    node.until("the first is unpublished", async || !one.exists())
        .await;
    assert_eq!(node.driver.count("NodeUnstageVolume"), 0);
    assert!(two.join("f").exists());
    node.end("s2", "c2");
    node.until_released().await;
    assert_eq!(node.driver.count("NodeUnstageVolume"), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_release_that_waits_for_a_process_keeps_no_other_scope_waiting() {
    let node = start(AccessMode::SingleNodeMultiWriter).await;
    let (first, second) = (node.sandbox("s1", 1), node.sandbox("s2", 1));
    let one = node.create_until(&first, "c1").await;
    let two = node.create_until(&second, "c2").await;
    let inside = node.dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let container = Elsewhere::start(
        "mount --bind \"$1\" \"$2\"; umount \"$3\"; umount \"$4\";",
        &[&one, &inside, &two, &node.staging()],
    );
    node.end("s1", "c1");
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One file system: who has it mounted holds every publication of it, and yet
    // a third scope comes in.
    let third = node.sandbox("s3", 1);
    node.create_until(&third, "c3").await;
    assert!(one.exists());
    drop(container);
    node.until("the first is unpublished", async || !one.exists())
        .await;
    node.end("s2", "c2");
    node.end("s3", "c3");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn nobody_writes_to_a_volume_of_readers() {
    let node = start(AccessMode::MultiNodeReaderOnly).await;
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    assert!(needs.mounts[0].read_only);
    let refused = fs::write(needs.mounts[0].source.join("f"), "x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    node.end("s1", "c1");
    node.finish().await;
}
