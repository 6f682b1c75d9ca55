// SPDX-License-Identifier: Apache-2.0
//! Volumes that grow.

use std::time::Duration;

use actor_volumes::{
    csi::{Condition, Usage, VolumeStats},
    error::{Error, Kind},
    proto::{
        api, csi::controller_service_capability::rpc::Type as ControllerType,
        csi::node_service_capability::rpc::Type as NodeType,
    },
};
use tonic::Code;

use crate::{
    bench::{Bench, shown},
    recorder::{Abilities, Recorder},
};

const MI: u64 = 1 << 20;

fn expands(abilities: &mut Abilities) {
    abilities.controller.push(ControllerType::ExpandVolume);
    abilities.online = Some(true);
}

/// A resumed actor `a` with a volume of 1 MiB.
async fn bench(change: impl FnOnce(&mut Abilities)) -> Bench<Recorder> {
    let mut bench = Bench::recorded(|abilities| {
        expands(abilities);
        change(abilities);
    })
    .await;
    let class = "allowVolumeExpansion: true\n";
    bench.class("pool", class).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench
}

async fn expand(bench: &mut Bench<Recorder>, mi: u64, wait_ms: u32) -> Result<api::Volume, Error> {
    let uid = bench.volumes().await.remove(0).uid;
    let request = api::ExpandVolumeRequest {
        uid,
        capacity_bytes: mi * MI,
        wait: wait_ms > 0,
        timeout_ms: wait_ms,
    };
    bench.client.expand_volume(request).await
}

#[tokio::test]
async fn an_attached_volume_grows_while_its_node_is_quiet() {
    let mut bench = bench(|_| {}).await;
    let grown = expand(&mut bench, 3, 5000).await.unwrap();
    assert_eq!(grown.capacity_bytes, 3 * MI);
    assert!(grown.expansion.is_none());
    let quiet = bench.node.quiet.lock().unwrap().clone();
    assert_eq!(quiet.values().collect::<Vec<_>>(), [&false], "{quiet:?}");
    // The same again has nothing to do, less is refused.
    expand(&mut bench, 3, 5000).await.unwrap();
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 1);
    let error = expand(&mut bench, 2, 0).await.err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidInput, "{error:?}");
    assert!(error.full_message().contains("only grow"), "{error:?}");
}

#[tokio::test]
async fn the_node_does_its_part_when_a_pod_uses_the_volume_also_after_suspend_and_restart() {
    let mut bench = bench(|a| a.node_expansion_required = true).await;
    let error = expand(&mut bench, 2, 300).await.err().unwrap();
    assert_eq!(error.kind(), Kind::DeadlineExceeded, "{error:?}");
    assert!(
        error.full_message().contains("in use on node node-a"),
        "{error:?}"
    );
    bench.suspend("a", true).await.unwrap();
    let mut bench = bench.restart().await;
    let shown = bench.volume().await;
    assert_eq!(shown.capacity_bytes, 2 * MI);
    let message = shown.expansion.unwrap().message;
    assert!(message.contains("next resume"), "{message}");
    *bench.node.published.lock().unwrap() = true;
    bench.resume("a").await.unwrap();
    bench
        .until_volume("expanded by the node", |v| v.expansion.is_none())
        .await;
    let expanded = bench.node.expanded.lock().unwrap().clone();
    assert_eq!(expanded.len(), 1);
    assert_eq!(expanded[0].1, 2 * MI);
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 1);
}

#[tokio::test]
async fn a_driver_that_expands_on_the_node_alone_is_asked_there() {
    let mut bench = bench(|a| {
        a.controller.pop();
        a.online = None;
        a.node.push(NodeType::ExpandVolume);
    })
    .await;
    *bench.node.published.lock().unwrap() = true;
    let grown = expand(&mut bench, 2, 5000).await.unwrap();
    assert_eq!(grown.capacity_bytes, 2 * MI);
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 0);
    assert_eq!(bench.node.expanded.lock().unwrap()[0].1, 2 * MI);
}

#[tokio::test]
async fn a_driver_that_expands_offline_is_asked_after_the_suspend() {
    let mut bench = bench(|a| a.online = Some(false)).await;
    let error = expand(&mut bench, 2, 300).await.err().unwrap();
    assert!(
        error.full_message().contains("waits for suspend"),
        "{error:?}"
    );
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 0);
    bench.suspend("a", true).await.unwrap();
    let grown = bench
        .until_volume("expanded", |v| v.expansion.is_none())
        .await;
    assert_eq!(grown.capacity_bytes, 2 * MI);
    // It had no node to expand on, and none has anything left to do.
    bench.resume("a").await.unwrap();
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 1);
}

#[tokio::test]
async fn a_lost_answer_is_made_good_by_the_same_request_also_over_a_restart() {
    let mut bench = bench(|_| {}).await;
    for _ in 0..1000 {
        bench
            .driver
            .fault("ControllerExpandVolume", Code::Unavailable, true);
    }
    expand(&mut bench, 2, 0).await.unwrap();
    let doubt = |v: &api::Volume| {
        let trouble = v.expansion.as_ref().and_then(|e| e.trouble.as_ref());
        trouble.is_some_and(|t| t.ambiguous && t.in_doubt == "ControllerExpandVolume")
    };
    let shown = bench.until_volume("in doubt", doubt).await;
    assert!(shown.uncertain);
    // Another size is another request: not before the answer.
    let error = expand(&mut bench, 4, 0).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    bench.driver.clear_faults();
    let mut bench = bench.restart().await;
    bench
        .until_volume("expanded", |v| v.expansion.is_none())
        .await;
    let world = bench.driver.world();
    assert!(world.expanded.len() >= 2);
    let same = world.expanded.iter().all(|r| r == &world.expanded[0]);
    assert!(same, "a retry with other fields");
}

#[tokio::test]
async fn a_final_no_is_told_and_not_asked_again_before_somebody_does() {
    for code in [
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::OutOfRange,
    ] {
        let mut bench = bench(|_| {}).await;
        bench.driver.fault("ControllerExpandVolume", code, false);
        let error = expand(&mut bench, 9, 5000).await.err().unwrap();
        assert!(error.full_message().contains("told to fail"), "{error:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bench.driver.count("ControllerExpandVolume"), 1, "{code:?}");
        // It stands in nobody's way.
        bench.suspend("a", true).await.unwrap();
        bench.resume("a").await.unwrap();
        assert_eq!(bench.driver.count("ControllerExpandVolume"), 1, "{code:?}");
        // Less than what was refused may be asked for.
        let grown = expand(&mut bench, 2, 5000).await.unwrap();
        assert_eq!(grown.capacity_bytes, 2 * MI);
    }
}

#[tokio::test]
async fn only_a_class_that_allows_it_lets_volumes_grow() {
    let mut bench = Bench::recorded(expands).await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    let error = expand(&mut bench, 2, 0).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    let says = error.full_message();
    assert!(says.contains("allowVolumeExpansion: true"), "{says}");
    assert_eq!(bench.driver.count("ControllerExpandVolume"), 0);
    // The word of the class counts when it is asked.
    let class = "allowVolumeExpansion: true\n";
    bench.class("pool", class).await.unwrap();
    expand(&mut bench, 2, 5000).await.unwrap();
}

#[tokio::test]
async fn usage_is_shown_and_a_node_that_hangs_is_not_waited_for() {
    let mut bench = bench(|_| {}).await;
    let asked = std::time::Instant::now();
    let usage = bench.volume().await.usage.unwrap();
    assert!(
        usage.message.contains("did not answer"),
        "{}",
        shown(&usage)
    );
    assert!(asked.elapsed() < Duration::from_secs(5));
    *bench.node.stats.lock().unwrap() = Some(VolumeStats {
        bytes: Some(Usage {
            total: 100,
            available: 60,
            used: 40,
        }),
        inodes: Some(Usage {
            total: 10,
            available: 9,
            used: 1,
        }),
        condition: Some(Condition {
            abnormal: true,
            message: "the disk fails".into(),
        }),
    });
    let usage = bench.volume().await.usage.unwrap();
    assert_eq!((usage.used_bytes, usage.total_bytes), (40, 100));
    assert_eq!((usage.used_inodes, usage.total_inodes), (1, 10));
    assert!(usage.abnormal && usage.condition == "the disk fails");
    bench.suspend("a", true).await.unwrap();
    assert!(bench.volume().await.usage.is_none());
}
