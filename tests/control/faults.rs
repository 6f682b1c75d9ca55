// SPDX-License-Identifier: Apache-2.0
//! What the control plane makes of drivers that fail, of nodes that do, and of
//! its own end.

use std::time::{Duration, Instant};

use actor_volumes::error::Kind;
use testkit::csi::Fault;
use tonic::Code;

use crate::bench::{Bench, actor, resume};

#[tokio::test]
async fn a_short_outage_at_create_is_over_in_seconds_and_leaks_nothing() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.driver.stop().await;
    bench.create("a", false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let shown = bench.show("a").await.unwrap();
    let trouble = shown.volumes[0].trouble.clone().unwrap();
    assert!(trouble.attempts > 0 && !trouble.next_try.is_empty());
    bench.driver.start_again().await;
    let begun = Instant::now();
    bench.resume("a").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    bench.is_clean();
}

#[tokio::test]
async fn a_final_no_is_shown_and_not_retried_and_the_actor_can_be_deleted() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench
        .driver
        .fault("CreateVolume", Fault::fail(Code::InvalidArgument));
    let error = bench.create("a", true).await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    assert!(error.full_message().contains("volume vol1"), "{error:?}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(bench.driver.count("CreateVolume"), 1);
    let volume = bench.volumes().await.remove(0);
    assert_eq!(volume.phase, "Failed");
    assert_eq!(volume.trouble.unwrap().next_try, "");
    // A verb asks again, and is told at once.
    let error = bench.resume("a").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    bench.delete("a", true).await.unwrap();
    assert_eq!(bench.driver.count("DeleteVolume"), 0);
    bench.is_clean();
}

#[tokio::test]
async fn a_refused_create_goes_on_when_a_verb_asks_again() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    let once = Fault::fail(Code::OutOfRange).times(1);
    bench.driver.fault("CreateVolume", once);
    bench.create("a", true).await.err().unwrap();
    bench.resume("a").await.unwrap();
}

#[tokio::test]
async fn a_volume_whose_create_was_never_answered_is_found_and_deleted() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench
        .driver
        .fault("CreateVolume", Fault::lose_answer().times(1));
    bench.create("a", false).await.unwrap();
    while bench.driver.volumes().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.delete("a", true).await.unwrap();
    assert!(
        bench.driver.count("CreateVolume") > 1,
        "it was not asked for its id"
    );
    bench.is_clean();
}

#[tokio::test]
async fn a_restart_in_the_midst_of_create_goes_on_with_the_same_request() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.driver.fault("CreateVolume", Fault::hang());
    bench.create("a", false).await.unwrap();
    while bench.driver.count("CreateVolume") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut bench = bench.restart().await;
    // The class says something else meanwhile; the volume was recorded before.
    bench.driver.clear_faults();
    bench.resume("a").await.unwrap();
    let grant = bench.control.current_grant(&actor("a"));
    let mut bench = bench.restart().await;
    assert_eq!(bench.control.current_grant(&actor("a")), grant);
    assert!(grant.is_some());
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    bench.is_clean();
}

#[tokio::test]
async fn a_restart_in_the_midst_of_attach_detach_and_delete_goes_on() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench
        .driver
        .fault("ControllerPublishVolume", Fault::lose_answer().times(1));
    let mut short = resume("a");
    short.timeout_ms = 50;
    let error = bench.client.resume_actor(short).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    let mut bench = bench.restart().await;
    bench.until("a", "Resumed").await;

    bench
        .driver
        .fault("ControllerUnpublishVolume", Fault::lose_answer().times(1));
    bench.suspend("a", false).await.unwrap();
    let mut bench = bench.restart().await;
    bench.until("a", "Suspended").await;

    bench
        .driver
        .fault("DeleteVolume", Fault::lose_answer().times(1));
    bench.delete("a", false).await.unwrap();
    let mut bench = bench.restart().await;
    while bench.show("a").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.is_clean();
}

#[tokio::test]
async fn a_resume_goes_on_without_its_caller() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    let slow = Fault::delay(Duration::from_millis(300));
    bench.driver.fault("ControllerPublishVolume", slow);
    bench.create("a", true).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(50), bench.resume("a")).await;
    assert!(gone.is_err());
    bench.until("a", "Resumed").await;
}

#[tokio::test]
async fn a_resume_that_did_not_come_to_its_end_can_be_called_off() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    let once = Fault::fail(Code::NotFound).times(1);
    bench.driver.fault("ControllerPublishVolume", once);
    let error = bench.resume("a").await.err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error:?}");
    assert_eq!(bench.show("a").await.unwrap().phase, "Resuming");
    bench.delete("a", true).await.unwrap();
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 1);
    bench.is_clean();
}

#[tokio::test]
async fn nothing_is_detached_while_the_node_does_not_hear_of_the_revoke() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    *bench.node.out_of_order.lock().unwrap() = true;
    let request = actor_volumes::proto::api::SuspendActorRequest {
        namespace: "agents".into(),
        name: "a".into(),
        wait: false,
        timeout_ms: 300,
        ..Default::default()
    };
    let error = bench.client.suspend_actor(request).await.err().unwrap();
    assert!(error.full_message().contains("out of order"), "{error:?}");
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 0);
    assert_eq!(bench.control.current_grant(&actor("a")), None);
    *bench.node.out_of_order.lock().unwrap() = false;
    bench.until("a", "Suspended").await;
    bench.kept_the_rules();
}

#[tokio::test]
async fn one_dead_volume_delays_no_other_actor() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench
        .driver
        .fault("ControllerUnpublishVolume", Fault::hang());
    bench.suspend("a", false).await.unwrap();
    let begun = Instant::now();
    bench.create("b", true).await.unwrap();
    bench.resume("b").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    bench.driver.clear_faults();
    bench.until("a", "Suspended").await;
}
