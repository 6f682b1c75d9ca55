// SPDX-License-Identifier: Apache-2.0
//! Volumes that a template lacks: kept until the rollout is complete, back with
//! their data before that, gone after it.

use std::time::{Duration, Instant};

use actor_volumes::control::store::{Reader, Store, Write};
use serde_json::Value;
use testkit::csi::Fault;

use crate::{
    bench::{Bench, actor},
    cli::out,
    updates::{POOL, apply, bench, json, volume_of},
};

/// Two actors with the volumes `a` and `b`, and a revision without `b`.
async fn two_actors() -> Bench {
    let bench = bench().await;
    apply(&bench, &[("a", POOL), ("b", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    out(&bench, "actor create agents/z --template t --wait").await;
    assert_eq!(apply(&bench, &[("a", POOL)]).await, 2);
    bench
}

async fn until(bench: &Bench, complete: bool) -> Value {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let status = json(bench, "template status t").await;
        if status["complete"] == complete {
            return status;
        }
        assert!(Instant::now() < end, "never so: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_volumes(bench: &Bench, count: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    while bench.driver.volumes().len() != count {
        assert!(Instant::now() < end, "{:?}", bench.driver.volumes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_removed_volume_is_kept_detached_until_every_actor_has_moved() {
    let bench = two_actors().await;
    out(&bench, "actor resume agents/a").await;
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(grant.volumes.len(), 1);
    let kept = volume_of(&bench, "b", true).await.unwrap();
    assert_eq!(
        (&kept["phase"], &kept["attachments"]),
        (&"Ready".into(), &Value::Array(vec![]))
    );
    let shown = out(&bench, "actor show agents/a").await;
    assert!(shown.contains("Kept"), "{shown}");
    let status = json(&bench, "template status t").await;
    assert_eq!(status["unboundCount"], 1);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("1 of 2 actors"), "{message}");
    assert_eq!(bench.driver.volumes().len(), 4);

    // The last one moves, and the server ends before anything is deleted.
    let no = Fault::fail(tonic::Code::Internal);
    bench.driver.fault("DeleteVolume", no);
    out(&bench, "actor update agents/z").await;
    let bench = bench.restart().await;
    bench.driver.clear_faults();
    until_volumes(&bench, 2).await;
    until(&bench, true).await;
    assert!(volume_of(&bench, "b", true).await.is_none());
    bench.kept_the_rules();
}

#[tokio::test]
async fn a_rollout_whose_last_move_was_the_last_word_of_a_server_is_ended_by_the_next() {
    let bench = two_actors().await;
    out(&bench, "actor update agents/a").await;
    // The record of the move is written, and nothing after it.
    let stored = bench.store.get("actor/agents/z").unwrap().unwrap();
    let text = String::from_utf8(stored.value).unwrap();
    let moved = text.replace("\"template_revision\":1", "\"template_revision\":2");
    assert_ne!(moved, text);
    let write = Write {
        key: "actor/agents/z".into(),
        expect: Some(stored.revision),
        value: Some(moved.into_bytes()),
    };
    bench.store.write(&[write]).unwrap();
    assert_eq!(bench.driver.volumes().len(), 4);
    let bench = bench.restart().await;
    until_volumes(&bench, 3).await;
    until(&bench, true).await;
    bench.kept_the_rules();
}

#[tokio::test]
async fn rolling_back_before_the_end_brings_the_volume_back() {
    let bench = two_actors().await;
    let before = volume_of(&bench, "b", false).await.unwrap()["uid"].clone();
    out(&bench, "actor update agents/a").await;
    let bench = bench.restart().await;
    let back = out(&bench, "template rollback t --to 1").await;
    assert_eq!(back, "template t changed (revision 3)\n");
    // The same again changes nothing.
    let back = out(&bench, "template rollback t --to 1").await;
    assert_eq!(back, "template t unchanged (revision 3)\n");
    out(&bench, "actor resume agents/a").await;
    assert_eq!(volume_of(&bench, "b", false).await.unwrap()["uid"], before);
    out(&bench, "actor update agents/z").await;
    until(&bench, true).await;
    assert_eq!(bench.driver.count("DeleteVolume"), 0);
    assert_eq!(bench.driver.volumes().len(), 4);
}

#[tokio::test]
async fn rolling_back_after_the_end_makes_a_new_volume() {
    let bench = two_actors().await;
    let before = volume_of(&bench, "b", false).await.unwrap()["uid"].clone();
    // The deletion is recorded and cannot come to its end.
    bench
        .driver
        .fault("DeleteVolume", Fault::fail(tonic::Code::Internal));
    out(&bench, "actor update agents/a").await;
    out(&bench, "actor update agents/z").await;
    let end = Instant::now() + Duration::from_secs(30);
    while bench.driver.count("DeleteVolume") == 0 {
        assert!(Instant::now() < end, "nothing is deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    out(&bench, "template rollback t --to 1").await;
    out(&bench, "actor resume agents/a").await;
    let after = volume_of(&bench, "b", false).await.unwrap();
    assert_ne!(after["uid"], before);
    assert_eq!(
        (&after["generation"], &after["introduced"]),
        (&1.into(), &3.into())
    );
    bench.driver.clear_faults();
    until_volumes(&bench, 3).await;
    bench.kept_the_rules();
}

#[tokio::test]
async fn a_name_that_is_added_again_is_another_volume() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL), ("b", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    out(&bench, "actor create agents/z --template t --wait").await;
    let before = volume_of(&bench, "b", false).await.unwrap()["uid"].clone();
    apply(&bench, &[("a", POOL)]).await;
    apply(&bench, &[("a", POOL), ("b", POOL)]).await;
    out(&bench, "actor resume agents/a").await;
    assert_ne!(volume_of(&bench, "b", false).await.unwrap()["uid"], before);
    assert_eq!(volume_of(&bench, "b", true).await.unwrap()["uid"], before);
    // An actor that is being deleted holds up nobody.
    out(&bench, "actor delete agents/z --wait").await;
    until(&bench, true).await;
    until_volumes(&bench, 2).await;
}
