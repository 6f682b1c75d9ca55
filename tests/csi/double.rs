// SPDX-License-Identifier: Apache-2.0
//! The test driver itself: it sees each rule that is broken.

use std::time::{Duration, Instant};

use actor_volumes::{
    csi::{CreateVolume, NodePublish, NodeStage, Outcome},
    error::Kind,
};
use testkit::csi::{Backend, CsiDriver, Fault, Options};

use crate::bench::{Bench, Context, create, deletion, failed};

#[tokio::test]
async fn the_double_notices_each_rule_that_is_broken() {
    let bench = Bench::new(|_| {}).await;
    let client = &bench.client;
    let none = Context::new();
    let volume = bench.create().await.unwrap();
    let id = &volume.volume_id;
    let (stage, publish) = (bench.stage(&volume, &none), bench.publish(&volume, &none));
    let expect = |text: &'static str| {
        let last = bench.server.violations().last().cloned();
        let last = last.unwrap_or_default();
        assert!(last.contains(text), "wanted {text:?}, got {last:?}");
    };
    client.node_publish(&publish).await.unwrap_err();
    expect("but it is staged at \"\"");
    client.node_stage(&stage).await.unwrap();
    client.delete_volume(&deletion(id)).await.unwrap_err();
    expect("while it is in use");
    client.node_publish(&publish).await.unwrap();
    let unstaged = client.node_unstage(id, &stage.staging_path).await;
    unstaged.unwrap_err();
    expect("while it is published");
    let other = NodePublish {
        read_only: true,
        ..publish.clone()
    };
    client.node_publish(&other).await.unwrap_err();
    expect("a retry with other fields");
    let larger = CreateVolume {
        required_bytes: 1 << 30,
        ..create()
    };
    client.create_volume(&larger).await.err().unwrap();
    expect("a retry with other fields");
    let forgetful = NodeStage {
        volume_context: none.clone(),
        ..stage.clone()
    };
    client.node_stage(&forgetful).await.unwrap_err();
    expect("another volume_context");
    let slow = Fault::delay(Duration::from_millis(200));
    bench.server.fault("NodeStageVolume", slow);
    let (a, b) = tokio::join!(client.node_stage(&stage), client.node_stage(&stage));
    assert!(a.is_ok() != b.is_ok());
    expect("while another call on the volume is in flight");
}

#[tokio::test]
async fn the_double_is_steered_and_read_through_files() {
    let files = tempfile::tempdir().unwrap();
    let at = |name| files.path().join(name);
    let bench = Bench::new(|o| {
        o.files.control = Some(at("control.json"));
        o.files.calls = Some(at("calls.jsonl"));
        o.files.violations = Some(at("violations.jsonl"));
    })
    .await;
    let say = |text: &str| std::fs::write(at("control.json"), text).unwrap();
    say(r#"{"fail":{"CreateVolume":"Aborted"},"times":{"CreateVolume":1}}"#);
    failed(bench.create().await, Outcome::Ambiguous, Kind::Aborted);
    let volume = bench.create().await.unwrap();
    say(r#"{"delay_ms":{"DeleteVolume":150}}"#);
    let start = Instant::now();
    let publish = bench.publish(&volume, &Context::new());
    bench.client.node_publish(&publish).await.unwrap_err();
    bench
        .client
        .delete_volume(&deletion(&volume.volume_id))
        .await
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(150));
    say("{");
    failed(bench.create().await, Outcome::Final, Kind::Internal);
    let lines = |name| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(at(name)).unwrap();
        let lines = text.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let creates = lines("calls.jsonl");
    let creates = creates.iter().filter(|l| l["method"] == "CreateVolume");
    let seqs: Vec<_> = creates.map(|l| l["seq"].clone()).collect();
    let answers: Vec<_> = lines("calls.jsonl")
        .into_iter()
        .filter(|l| l.get("method").is_none() && seqs.contains(&l["seq"]))
        .map(|l| l["code"].clone())
        .collect();
    assert_eq!(answers, ["Aborted", "Ok", "Internal"]);
    assert_eq!(lines("violations.jsonl").len(), 1);
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn the_double_keeps_data_over_the_death_of_its_process() {
    let root = tempfile::tempdir().unwrap();
    let backend = Backend::Bind {
        root: root.path().join("backend"),
    };
    let mut bench = Bench::new(|o| o.backend = backend.clone()).await;
    let volume = bench.create().await.unwrap();
    let id = volume.volume_id.clone();
    let none = Context::new();
    let (stage, publish) = (bench.stage(&volume, &none), bench.publish(&volume, &none));
    bench.client.node_stage(&stage).await.unwrap();
    bench.client.node_publish(&publish).await.unwrap();
    std::fs::write(publish.target_path.join("f"), "kept").unwrap();
    bench.server.stop().await;
    // Another process would know no more than what is on disk.
    bench.server = CsiDriver::start_with(&bench.path("csi.sock"), Options::new(backend)).await;
    bench.client.node_publish(&publish).await.unwrap();
    let read = std::fs::read_to_string(publish.target_path.join("f")).unwrap();
    assert_eq!(read, "kept");
    bench
        .client
        .delete_volume(&deletion(&id))
        .await
        .unwrap_err();
    let refused = bench.server.violations();
    assert!(refused.len() == 1 && refused[0].contains("in use"));
    let target = &publish.target_path;
    bench.client.node_unpublish(&id, target).await.unwrap();
    let staging = &stage.staging_path;
    bench.client.node_unstage(&id, staging).await.unwrap();
    bench.client.delete_volume(&deletion(&id)).await.unwrap();
    let left = std::fs::read_dir(root.path().join("backend/volumes")).unwrap();
    assert_eq!(left.count(), 0);
}
