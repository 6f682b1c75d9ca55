// SPDX-License-Identifier: Apache-2.0
//! The CSI client against a driver that fails on demand, over a real socket.

use std::time::{Duration, Instant};

use actor_volumes::{
    csi::{ControllerPublish, Outcome},
    error::Kind,
    secret::Secrets,
};
use testkit::csi::Fault;
use tonic::Code;

use crate::bench::{
    Bench, Context, NAME, capability, client, create, deletion, detachment, failed,
};

#[tokio::test]
async fn a_driver_of_another_name_is_refused_and_both_names_are_told() {
    let bench = Bench::new(|o| o.name = "other.example".into()).await;
    let text = failed(
        bench.create().await,
        Outcome::Ambiguous,
        Kind::FailedPrecondition,
    );
    assert!(
        text.contains("other.example") && text.contains(NAME),
        "{text}"
    );
    assert_eq!(bench.server.count("CreateVolume"), 0);
}

#[tokio::test]
async fn a_driver_is_waited_for_until_it_is_ready() {
    let bench = Bench::new(|_| {}).await;
    bench.server.set_ready(false);
    let waiting = tokio::spawn({
        let client = bench.client.clone();
        async move { client.create_volume(&create()).await.map(drop) }
    });
    while bench.server.count("Probe") < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.server.count("CreateVolume"), 0);
    bench.server.set_ready(true);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn many_callers_of_a_driver_that_stays_unready_wait_for_one_deadline() {
    let bench = Bench::with_timeout(Duration::from_secs(1), |_| {}).await;
    bench.server.set_ready(false);
    let start = Instant::now();
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let client = bench.client.clone();
            tokio::spawn(async move { client.delete_volume(&deletion("x")).await })
        })
        .collect();
    for caller in callers {
        let text = failed(caller.await.unwrap(), Outcome::Ambiguous, Kind::Unavailable);
        assert!(text.contains("not ready"), "{text}");
    }
    // One after the other they would take 20 seconds.
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.server.count("DeleteVolume"), 0);
}

#[tokio::test]
async fn a_driver_that_is_not_there_fails_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let client = client(NAME, dir.path().join("none.sock"), Duration::from_secs(5));
    let start = Instant::now();
    let text = failed(
        client.delete_volume(&deletion("x")).await,
        Outcome::Ambiguous,
        Kind::Unavailable,
    );
    assert!(text.contains("none.sock"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let status = client.status().await;
    assert!(!status.ready && status.message.contains("none.sock"));
}

#[tokio::test]
async fn what_is_not_advertised_is_not_sent() {
    let bench = Bench::new(|o| o.create = false).await;
    let final_no = |r| failed(r, Outcome::Final, Kind::Unimplemented);
    let text = final_no(bench.create().await.map(drop));
    assert!(text.contains("CREATE_DELETE_VOLUME"), "{text}");
    final_no(bench.client.delete_volume(&deletion("x")).await);
    assert_eq!(bench.server.count("CreateVolume"), 0);
    assert_eq!(bench.server.count("DeleteVolume"), 0);
}

#[tokio::test]
async fn attaching_and_staging_are_left_out_where_the_driver_has_them_not() {
    let bench = Bench::new(|o| o.stage = false).await;
    let volume = bench.create().await.unwrap();
    let attach = ControllerPublish {
        volume_id: volume.volume_id.clone(),
        node_id: bench.client.node_info().await.unwrap().node_id,
        capability: capability(),
        read_only: false,
        volume_context: volume.volume_context.clone(),
        secrets: Secrets::default(),
    };
    let context = bench.client.controller_publish(&attach).await.unwrap();
    assert!(context.is_empty());
    let (stage, publish) = (
        bench.stage(&volume, &context),
        bench.publish(&volume, &context),
    );
    bench.client.node_stage(&stage).await.unwrap();
    // testkit breaks this if a staging path is sent.
    bench.client.node_publish(&publish).await.unwrap();
    let (id, staging) = (&volume.volume_id, &stage.staging_path);
    let target = &publish.target_path;
    bench.client.node_unpublish(id, target).await.unwrap();
    bench.client.node_unstage(id, staging).await.unwrap();
    bench
        .client
        .controller_unpublish(&detachment(id, "node-a"))
        .await
        .unwrap();
    for method in [
        "ControllerPublishVolume",
        "ControllerUnpublishVolume",
        "NodeStageVolume",
        "NodeUnstageVolume",
    ] {
        assert_eq!(bench.server.count(method), 0, "{method}");
    }
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_driver_without_the_node_service_creates_but_proves_nothing_about_a_node() {
    let bench = Bench::new(|o| o.node_service = false).await;
    let volume = bench.create().await.unwrap();
    assert!(!bench.client.capabilities().await.unwrap().node);
    let stage = bench.stage(&volume, &Context::new());
    let id = &volume.volume_id;
    for result in [
        bench.client.node_stage(&stage).await,
        bench.client.node_unstage(id, &stage.staging_path).await,
        bench.client.node_unpublish(id, &bench.path("t")).await,
    ] {
        failed(result, Outcome::Final, Kind::Unimplemented);
    }
}

#[tokio::test]
async fn each_code_has_its_class() {
    let bench = Bench::new(|_| {}).await;
    let ambiguous = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Unavailable,
        Code::Aborted,
    ];
    for code in (1..=16).map(Code::from) {
        for method in ["DeleteVolume", "NodeUnpublishVolume"] {
            let fault = Fault::fail(code).times(1);
            bench.server.fault(method, fault);
            let error = if method == "DeleteVolume" {
                bench.client.delete_volume(&deletion("x")).await
            } else {
                let target = bench.path("target");
                bench.client.node_unpublish("x", &target).await
            };
            let error = error.expect_err(method);
            let mounting = method == "NodeUnpublishVolume";
            let open = ambiguous.contains(&code) || (mounting && code == Code::ResourceExhausted);
            let expected = if open {
                Outcome::Ambiguous
            } else {
                Outcome::Final
            };
            assert_eq!(error.outcome, expected, "{method} {code:?}");
            assert_eq!(error.rpc, method);
            assert_eq!(error.error.kind(), Kind::from_code(code.into()));
            let text = error.to_string();
            assert!(text.contains("because it was told to"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_slow_call_ends_at_the_deadline_and_its_retry_joins_what_was_done() {
    let bench = Bench::with_timeout(Duration::from_secs(1), |_| {}).await;
    bench.client.capabilities().await.unwrap();
    bench.server.fault("CreateVolume", Fault::hang());
    let start = Instant::now();
    let first = bench.create().await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    failed(first, Outcome::Ambiguous, Kind::DeadlineExceeded);
    // The driver goes on, and says so to the next call.
    failed(bench.create().await, Outcome::Ambiguous, Kind::Aborted);
    bench.server.clear_faults();
    let answered = || {
        let calls = bench.server.calls();
        let first = calls.iter().find(|c| c.method == "CreateVolume");
        first.is_some_and(|c| c.code.is_some())
    };
    while !answered() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.create().await.unwrap();
    assert_eq!(bench.server.volumes().len(), 1);
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn an_answer_that_was_lost_is_made_good_by_the_same_request() {
    let bench = Bench::new(|_| {}).await;
    let lost = Fault::lose_answer().times(1);
    bench.server.fault("CreateVolume", lost);
    failed(bench.create().await, Outcome::Ambiguous, Kind::Unavailable);
    let volume = bench.create().await.unwrap();
    assert_eq!(bench.server.volumes(), [volume.volume_id]);
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_driver_that_was_started_again_is_read_again_and_no_call_is_lost() {
    let mut bench = Bench::new(|o| o.version = "1".into()).await;
    bench.create().await.unwrap();
    assert!(bench.client.capabilities().await.unwrap().stage);
    bench.server.stop().await;
    bench.server.reconfigure(|o| {
        o.version = "2".into();
        o.stage = false;
    });
    bench.server.start_again().await;
    // Nothing could have been sent on the old connection, so nobody needs to know.
    bench.create().await.unwrap();
    let now = bench.client.capabilities().await.unwrap();
    assert!(!now.stage);
    assert_eq!(bench.client.status().await.version, "2");
    assert_eq!(bench.server.count("GetPluginInfo"), 2);
}

#[tokio::test]
async fn a_driver_that_dies_in_a_call_leaves_its_outcome_open() {
    let mut bench = Bench::new(|_| {}).await;
    bench.client.capabilities().await.unwrap();
    bench.server.fault("CreateVolume", Fault::hang());
    let hanging = tokio::spawn({
        let client = bench.client.clone();
        async move { client.create_volume(&create()).await.map(drop) }
    });
    while bench.server.count("CreateVolume") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.server.stop().await;
    let text = failed(
        hanging.await.unwrap(),
        Outcome::Ambiguous,
        Kind::Unavailable,
    );
    assert!(text.contains("may have been carried out"), "{text}");
    failed(bench.create().await, Outcome::Ambiguous, Kind::Unavailable);
    bench.server.clear_faults();
    bench.server.start_again().await;
    bench.create().await.unwrap();
    // The request that may have arrived was not sent a second time by itself.
    assert_eq!(bench.server.count("CreateVolume"), 2);
}

#[tokio::test]
async fn contexts_go_the_whole_way_and_no_rule_is_broken() {
    let bench = Bench::new(|o| o.attach = true).await;
    let volume = bench.create().await.unwrap();
    assert!(!volume.volume_context.is_empty());
    assert_eq!(volume.capacity_bytes, 1 << 20);
    let node_id = bench.client.node_info().await.unwrap().node_id;
    let attach = ControllerPublish {
        volume_id: volume.volume_id.clone(),
        node_id: node_id.clone(),
        capability: capability(),
        read_only: false,
        volume_context: volume.volume_context.clone(),
        secrets: Secrets::default(),
    };
    let context = bench.client.controller_publish(&attach).await.unwrap();
    assert!(context.contains_key("token"));
    let (stage, publish) = (
        bench.stage(&volume, &context),
        bench.publish(&volume, &context),
    );
    let (id, client) = (&volume.volume_id, &bench.client);
    for _ in 0..2 {
        client.node_stage(&stage).await.unwrap();
        client.node_publish(&publish).await.unwrap();
    }
    assert!(publish.target_path.is_dir());
    for _ in 0..2 {
        client
            .node_unpublish(id, &publish.target_path)
            .await
            .unwrap();
    }
    assert!(!publish.target_path.exists());
    for _ in 0..2 {
        client.node_unstage(id, &stage.staging_path).await.unwrap();
    }
    client
        .controller_unpublish(&detachment(id, &node_id))
        .await
        .unwrap();
    client.delete_volume(&deletion(id)).await.unwrap();
    client.delete_volume(&deletion(id)).await.unwrap();
    assert!(bench.server.volumes().is_empty());
    assert_eq!(bench.server.count("NodeGetInfo"), 1);
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_single_writer_falls_back_where_one_service_does_not_know_it() {
    for (controller, node) in [(true, false), (false, true), (false, false)] {
        let bench = Bench::new(|o| {
            o.controller_single_node_modes = controller;
            o.node_single_node_modes = node;
        })
        .await;
        let volume = bench.create().await.unwrap();
        let stage = bench.stage(&volume, &Context::new());
        bench.client.node_stage(&stage).await.unwrap();
        bench.assert_no_rule_broken();
    }
}

#[tokio::test]
async fn a_volume_that_is_too_small_is_deleted_again() {
    let bench = Bench::new(|o| o.capacity = Some(4096)).await;
    let text = failed(bench.create().await, Outcome::Final, Kind::Internal);
    assert!(text.contains("4096") && text.contains("1048576"), "{text}");
    assert!(bench.server.volumes().is_empty());
    // Where that fails, the volume is there: not final.
    let bench = Bench::new(|o| o.capacity = Some(4096)).await;
    let fault = Fault::fail(Code::Unavailable);
    bench.server.fault("DeleteVolume", fault);
    failed(bench.create().await, Outcome::Ambiguous, Kind::Internal);
    assert_eq!(bench.server.volumes().len(), 1);
}

#[tokio::test]
async fn the_status_tells_ready_unready_and_gone() {
    let mut bench = Bench::with_timeout(Duration::from_secs(1), |_| {}).await;
    let status = bench.client.status().await;
    assert!(status.ready && status.message.is_empty());
    assert_eq!(status.version, "1");
    let names = [
        "CONTROLLER_SERVICE",
        "Controller.CREATE_DELETE_VOLUME",
        "Controller.SINGLE_NODE_MULTI_WRITER",
        "Node.STAGE_UNSTAGE_VOLUME",
        "Node.SINGLE_NODE_MULTI_WRITER",
    ];
    assert_eq!(status.capabilities, names);
    bench.server.set_ready(false);
    let status = bench.client.status().await;
    assert!(!status.ready && status.message.contains("not ready"));
    bench.server.stop().await;
    let status = bench.client.status().await;
    assert!(!status.ready && status.message.contains("csi.sock"));
    // What was learnt is still shown: it may be what someone looks for.
    assert_eq!(status.version, "1");
}
