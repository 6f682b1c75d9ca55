// SPDX-License-Identifier: Apache-2.0
//! Lies, losses, and answers that are wrong; none of them is the caller's fault.

use actor_volumes::proto::csi::{self as wire, volume_content_source as source};
use actor_volumes_testkit::csi::{Chaos, Expansion, Fault};
use tonic::Code;

use crate::bench::{Bench, MIB, until};

#[tokio::test]
async fn a_lie_is_answered_with_ok_and_nothing_is_done() {
    let bench = Bench::new(|o| {
        o.attach = true;
        o.expand_controller = true;
        o.expansion = Some(Expansion::Online);
    })
    .await;
    let (mut caller, driver) = (bench.caller.clone(), &bench.driver);
    let lie = |method: &str| driver.fault(method, Fault::lie().times(1));
    lie("CreateVolume");
    caller.create().await.unwrap();
    assert!(driver.volumes().is_empty());
    caller.create().await.unwrap();
    lie("ControllerPublishVolume");
    caller.attach().await.unwrap();
    assert!(driver.attached(&caller.id).is_empty());
    assert_eq!(caller.stage().await.err().unwrap().code(), Code::Internal);
    caller.attach().await.unwrap();
    caller.stage().await.unwrap();
    lie("NodePublishVolume");
    caller.publish().await.unwrap();
    assert!(!caller.path("target").exists());
    caller.publish().await.unwrap();
    assert!(caller.path("target").exists());
    lie("ControllerExpandVolume");
    caller.expand(64 * MIB).await.unwrap();
    assert_eq!(driver.capacity(&caller.id), Some(32 * MIB));
    lie("NodeUnpublishVolume");
    caller.unpublish().await.unwrap();
    assert!(caller.path("target").exists());
    caller.unpublish().await.unwrap();
    assert!(!caller.path("target").exists());
    caller.unstage().await.unwrap();
    lie("ControllerUnpublishVolume");
    caller.detach().await.unwrap();
    assert_eq!(driver.attached(&caller.id), ["node-a"]);
    // The caller could not know; the driver does.
    let used = caller.delete().await.err().unwrap();
    assert_eq!(used.code(), Code::FailedPrecondition);
    caller.detach().await.unwrap();
    lie("DeleteVolume");
    caller.delete().await.unwrap();
    assert_eq!(driver.volumes().len(), 1);
    caller.delete().await.unwrap();
    assert!(driver.volumes().is_empty());
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn what_is_forgotten_is_not_found_and_its_undoing_is_answered_with_ok() {
    for all in [false, true] {
        let bench = Bench::new(|_| {}).await;
        let mut caller = bench.caller.clone();
        caller.up().await;
        match all {
            true => bench.driver.forget_all(),
            false => bench.driver.forget(&caller.id),
        }
        assert_eq!(caller.stage().await.err().unwrap().code(), Code::NotFound);
        assert_eq!(caller.publish().await.err().unwrap().code(), Code::NotFound);
        caller.unpublish().await.unwrap();
        assert!(caller.path("target").exists());
        caller.unstage().await.unwrap();
        // The same request brings it back.
        caller.create().await.unwrap();
        caller.stage().await.unwrap();
        bench.assert_no_rule_broken();
    }
}

#[tokio::test]
async fn any_code_may_come_before_or_after_the_effect() {
    for code in (1..=16).map(Code::from) {
        let bench = Bench::new(|_| {}).await;
        let mut caller = bench.caller.clone();
        caller.create().await.unwrap();
        caller.stage().await.unwrap();
        let fault = |fault: Fault| bench.driver.fault("NodePublishVolume", fault.times(1));
        fault(Fault::fail(code));
        assert_eq!(caller.publish().await.err().unwrap().code(), code);
        assert!(!caller.path("target").exists());
        fault(Fault::fail_after(code));
        assert_eq!(caller.publish().await.err().unwrap().code(), code);
        assert!(caller.path("target").exists());
        caller.publish().await.unwrap();
        bench.assert_no_rule_broken();
    }
}

#[tokio::test]
async fn a_call_may_hang_with_half_of_it_done() {
    let mut bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    caller.stage().await.unwrap();
    let (mut hanging, target) = (caller.clone(), caller.path("target"));
    bench
        .driver
        .fault("NodePublishVolume", Fault::hang_midway());
    let call = tokio::spawn(async move { hanging.publish().await });
    tokio::task::spawn_blocking(move || until("the target is made", || target.exists()))
        .await
        .unwrap();
    assert!(!call.is_finished());
    bench.driver.clear_faults();
    call.await.unwrap().unwrap();
    // One that is stopped there goes on anew.
    caller.unpublish().await.unwrap();
    bench
        .driver
        .fault("NodePublishVolume", Fault::hang_midway());
    let mut hanging = caller.clone();
    let call = tokio::spawn(async move { hanging.publish().await });
    while bench.driver.count("NodePublishVolume") < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    bench.driver.stop().await;
    assert!(call.await.unwrap().is_err());
    bench.driver.clear_faults();
    bench.driver.start_again().await;
    caller.publish().await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn answers_may_be_larger_than_csi_allows() {
    let bench = Bench::new(|o| {
        o.attach = true;
        o.id_bytes = 300;
        o.publish_context_bytes = 9000;
    })
    .await;
    let mut caller = bench.caller.clone();
    assert_eq!(caller.create().await.unwrap().volume_id.len(), 300);
    let context = caller.attach().await.unwrap();
    assert_eq!(context["more"].len(), 9000);
    // Whoever takes them must pass them on as they are.
    caller.stage().await.unwrap();
    caller.publish().await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_clone_says_where_it_is_from_unless_the_source_is_ignored() {
    let bench = Bench::new(|o| o.clone_volume = true).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    let from = |volume_id: &str| {
        let volume_id = volume_id.to_owned();
        Some(wire::VolumeContentSource {
            r#type: Some(source::Type::Volume(source::VolumeSource { volume_id })),
        })
    };
    let clone = |name: &str, volume: &str| wire::CreateVolumeRequest {
        name: name.into(),
        volume_content_source: from(volume),
        ..bench.caller.creation()
    };
    let id = caller.id.clone();
    let honest = caller.create_as(clone("b", &id)).await.unwrap();
    assert!(honest.content_source == from(&id));
    let missing = caller.create_as(clone("c", "unknown")).await;
    assert_eq!(missing.err().unwrap().code(), Code::NotFound);
    bench.driver.reconfigure(|o| o.ignore_content_source = true);
    let empty = caller.create_as(clone("d", &id)).await.unwrap();
    assert!(empty.content_source.is_none());
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn chaos_is_the_same_for_the_same_seed_and_a_patient_caller_gets_through() {
    let run = |seed| async move {
        let bench = Bench::new(|o| o.attach = true).await;
        let mut caller = bench.caller.clone();
        bench.driver.chaos(Chaos { seed, percent: 60 });
        macro_rules! patiently {
            ($($call:ident)*) => {$(
                while let Err(e) = caller.$call().await {
                    assert!(matches!(
                        e.code(),
                        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted
                    ), "{e}");
                }
            )*};
        }
        patiently!(create attach stage publish unpublish unstage detach delete);
        bench.assert_no_rule_broken();
        let calls = bench.driver.calls().into_iter();
        calls.map(|c| (c.method, c.code)).collect::<Vec<_>>()
    };
    let first = run(5).await;
    assert!(first.len() > 8, "nothing failed");
    assert_eq!(first, run(5).await);
    assert_ne!(first, run(6).await);
}
