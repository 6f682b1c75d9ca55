// SPDX-License-Identifier: Apache-2.0
//! A driver that says OK and does nothing, or more than it should.

use std::path::Path;

use actor_volumes::model::AccessMode;
use testkit::csi::Fault;

use crate::node::{Node, Over, Setup, shell};

const BROKEN: &str = "actor_volumes_node_broken_promises_total";

fn broken(node: &Node, rpc: &str) -> Option<u64> {
    let driver = &node.volume.driver;
    node.metric(&format!("{BROKEN}{{driver=\"{driver}\",rpc=\"{rpc}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_container_never_gets_a_target_at_which_nothing_is_mounted() {
    let node = Node::start().await;
    node.driver.fault("NodePublishVolume", Fault::lie());
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    node.until("the promise is seen to be broken", async || {
        broken(&node, "NodePublishVolume").is_some()
    })
    .await;
    let refused = node.create(&sandbox, "c1").await.unwrap_err();
    let text = refused.full_message();
    assert!(text.contains("nothing is mounted at"), "{text}");
    node.driver.clear_faults();
    node.create_until(&sandbox, "c1").await;
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_empty_staging_directory_is_not_taken_for_the_volume() {
    let node = Node::start().await;
    node.driver.fault("NodeStageVolume", Fault::lie());
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    node.until("the promise is seen to be broken", async || {
        broken(&node, "NodePublishVolume").is_some()
    })
    .await;
    let refused = node.create(&sandbox, "c1").await.unwrap_err();
    let text = refused.full_message();
    assert!(text.contains("our own empty directory"), "{text}");
    // What was staged for nothing is staged again.
    node.driver.clear_faults();
    node.create_until(&sandbox, "c1").await;
    node.end("s1", "c1");
    node.until_released().await;
    node.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_unmount_that_did_not_happen_is_asked_for_again_at_once() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for rpc in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        node.driver.fault(rpc, Fault::lie().times(2));
    }
    node.end("s1", "c1");
    node.until_released().await;
    for rpc in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        assert_eq!(node.driver.count(rpc), 3, "{rpc}");
        assert_eq!(broken(&node, rpc), None, "{rpc}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_unmount_that_never_happens_is_an_alarm_and_no_release() {
    for rpc in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        let node = Node::start().await;
        let sandbox = node.sandbox("s1", 1);
        node.create_until(&sandbox, "c1").await;
        node.driver.fault(rpc, Fault::lie());
        node.end("s1", "c1");
        node.until("it is counted", async || broken(&node, rpc).is_some())
            .await;
        let held = node.agent.held(&node.key()).await.unwrap();
        assert!(held.contains(&format!("answered OK to {rpc}")), "{held}");
        node.driver.clear_faults();
        node.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn mounts_that_were_stacked_on_a_target_are_all_taken_away() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    for _ in 0..3 {
        assert!(shell(&target, "mount --bind . \"$PWD\""));
    }
    node.end("s1", "c1");
    node.finish().await;
}

fn unmount(path: &Path) {
    let path = path.display();
    assert!(shell(Path::new("/"), &format!("umount '{path}'")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_staging_that_was_lost_is_made_again_before_it_is_used() {
    let setup = Setup {
        access_mode: AccessMode::MultiNodeMultiWriter,
        ..Setup::default()
    };
    let node = Node::over(Over::Bind, setup, |_| ()).await;
    let first = node.sandbox("s1", 1);
    let one = node.create_until(&first, "c1").await;
    std::fs::write(one.join("f"), "kept").unwrap();
    unmount(&node.staging());
    let second = node.sandbox("s2", 1);
    let two = node.create_until(&second, "c2").await;
    assert_eq!(std::fs::read_to_string(two.join("f")).unwrap(), "kept");
    assert_eq!(node.driver.count("NodeStageVolume"), 2);
    node.end("s1", "c1");
    node.end("s2", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_target_that_somebody_unmounted_is_published_anew_before_the_next_container() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    std::fs::write(target.join("f"), "kept").unwrap();
    node.runs("s1", "c1", false);
    unmount(&target);
    let target = node.create_until(&sandbox, "c2").await;
    assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "kept");
    node.end("s1", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn files_that_lie_where_a_release_cleans_up_stay_also_of_a_volume_left_mounted() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    std::fs::write(target.join("f"), "kept").unwrap();
    let publications = target.parent().unwrap().to_owned();
    let (left, file) = (publications.join("left"), publications.join("file"));
    std::fs::create_dir(&left).unwrap();
    let bind = format!("mount --bind {} left", target.display());
    assert!(shell(&publications, &bind));
    std::fs::write(&file, "kept").unwrap();
    assert_eq!(std::fs::read_to_string(left.join("f")).unwrap(), "kept");

    node.end("s1", "c1");
    node.until("the release says what is in its way", async || {
        let held = node.agent.held(&node.key()).await.unwrap();
        held.contains("nothing in it was touched")
    })
    .await;
    assert_eq!(std::fs::read_to_string(left.join("f")).unwrap(), "kept");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert!(shell(&publications, "umount left && rmdir left && rm file"));
    node.finish().await;
}
