// SPDX-License-Identifier: Apache-2.0
//! The command line against a served control plane: what a script sees.

use std::process::{Command, Output, Stdio};

use actor_volumes::proto::csi::controller_service_capability::rpc::Type as ControllerType;
use serde_json::Value;
use tonic::Code;

use crate::bench::{Bench, DRIVER};

/// Runs the binary against the bench.
pub(crate) async fn run<D>(bench: &Bench<D>, line: &str) -> Output {
    run_with(bench, line, "").await
}

pub(crate) async fn run_with<D>(bench: &Bench<D>, line: &str, stdin: &str) -> Output {
    use std::io::Write;

    let mut command = Command::new(env!("CARGO_BIN_EXE_actor-volumes"));
    command
        .env("ACTOR_VOLUMES_SOCKET", bench.socket())
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        // A verb that reads no stdin may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// What it printed, when it did what it was told to.
pub(crate) async fn out<D>(bench: &Bench<D>, line: &str) -> String {
    let output = run(bench, line).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its exit status and what it said.
pub(crate) async fn failure<D>(bench: &Bench<D>, line: &str) -> (i32, String) {
    let output = run(bench, line).await;
    assert!(output.stdout.is_empty(), "{line}: it printed an answer");
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr)
}

#[tokio::test]
async fn a_script_takes_an_actor_from_create_to_delete() {
    let bench = Bench::new().await;
    let class = format!("kind: StorageClass\nmetadata: {{name: pool}}\nprovisioner: {DRIVER}\n");
    let applied = run_with(&bench, "storageclass apply -f -", &class).await;
    assert_eq!(
        String::from_utf8_lossy(&applied.stdout),
        "storageclass pool created\n"
    );
    let file = bench.dir.path().join("t.yaml");
    let template = "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - volumeMounts: [{name: vol1, mountPath: /my-data}]\n  volumes:\n  - name: vol1\n    externalVolumeTemplate: {capacity: 5Gi, storageClassName: pool}\n";
    std::fs::write(&file, template).unwrap();
    let apply = format!("template apply -f {}", file.display());
    assert_eq!(
        out(&bench, &apply).await,
        "template t created (revision 1)\n"
    );
    assert_eq!(
        out(&bench, &apply).await,
        "template t unchanged (revision 1)\n"
    );
    // What is shown can be applied again.
    let shown = out(&bench, "template show t -o yaml").await;
    let again = run_with(&bench, "template apply -f -", &shown).await;
    assert_eq!(
        String::from_utf8_lossy(&again.stdout),
        "template t unchanged (revision 1)\n"
    );

    out(&bench, "actor create agents/a --template t --wait").await;
    let first = out(&bench, "actor resume agents/a").await;
    let annotations: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(annotations["actor-volumes.dev/actor"], "agents/a");
    assert_eq!(annotations.as_object().unwrap().len(), 3);
    assert_eq!(out(&bench, "actor resume agents/a").await, first);
    let cri = out(&bench, "actor resume agents/a --format cri").await;
    let cri: Value = serde_json::from_str(&cri).unwrap();
    assert_eq!(cri["annotations"], annotations);

    let table = out(&bench, "actor ls").await;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE   NAME"), "{table}");
    assert!(
        lines[1].contains("Resumed") && lines[1].contains("1/1"),
        "{table}"
    );
    let volumes: Value = serde_json::from_str(&out(&bench, "volume ls -o json").await).unwrap();
    let uid = volumes[0]["uid"].as_str().unwrap();
    assert_eq!(volumes[0]["requestedBytes"], 5u64 << 30);
    let shown = out(&bench, &format!("volume show {uid}")).await;
    assert!(
        shown.contains("Attached") && shown.contains("5Gi"),
        "{shown}"
    );
    assert!(!shown.contains("token"), "a context is shown: {shown}");

    let (code, says) = failure(&bench, "actor delete agents/a").await;
    assert_eq!(code, 5);
    assert!(
        says.starts_with("error: ") && says.contains("suspend it first"),
        "{says}"
    );
    let suspended = out(&bench, "actor suspend agents/a --wait").await;
    assert_eq!(suspended, "actor agents/a is suspended\n");
    out(&bench, "actor delete agents/a --wait").await;
    let (code, says) = failure(&bench, "actor delete agents/a --wait").await;
    assert_eq!(code, 4, "{says}");
    assert_eq!(out(&bench, "volume ls -o json").await, "[]\n");
    bench.is_clean();
}

#[tokio::test]
async fn the_exit_status_says_what_kind_of_failure_it_was() {
    let bench = Bench::new().await;
    assert_eq!(failure(&bench, "actor show nobody").await.0, 2);
    assert_eq!(failure(&bench, "template show nothing").await.0, 4);
    let bad = run_with(&bench, "template apply -f -", "kind: [").await;
    assert_eq!(bad.status.code(), Some(3));
    let (code, says) = failure(&bench, "template apply -f /no/such/file").await;
    assert_eq!(code, 3);
    assert!(says.contains("/no/such/file"), "{says}");
    let (code, says) = failure(&bench, "--socket /no/such.sock actor ls").await;
    assert_eq!(code, 7);
    assert!(
        says.contains("/no/such.sock") && says.contains("is its server running"),
        "{says}"
    );
}

#[tokio::test]
async fn drivers_are_listed_with_what_keeps_them_from_being_ready() {
    let mut bench = Bench::new().await;
    let ready = out(&bench, "driver ls").await;
    assert!(ready.contains(DRIVER) && ready.contains("yes"), "{ready}");
    bench.driver.stop().await;
    let drivers: Value = serde_json::from_str(&out(&bench, "driver ls -o json").await).unwrap();
    assert_eq!(drivers[0]["ready"], false);
    assert_ne!(drivers[0]["message"], "");
}

#[tokio::test]
async fn a_volume_grows_and_an_orphan_goes_when_a_script_says_so() {
    let mut bench = Bench::recorded(|abilities| {
        abilities.controller.extend([
            ControllerType::ExpandVolume,
            ControllerType::ListVolumes,
            ControllerType::ListVolumesPublishedNodes,
        ]);
        abilities.online = Some(true);
    })
    .await;
    let class = "allowVolumeExpansion: true\n";
    bench.class("pool", class).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.create("a", true).await.unwrap();
    let uid = bench.volumes().await.remove(0).uid;
    let line = format!("volume expand {uid} --capacity 2Mi --wait");
    assert_eq!(out(&bench, &line).await, format!("volume {uid} has 2Mi\n"));
    let line = format!("volume expand {uid} --capacity 1Mi");
    let (code, says) = failure(&bench, &line).await;
    assert_eq!(code, 3, "{says}");
    bench
        .driver
        .fault("ControllerExpandVolume", Code::OutOfRange, false);
    let line = format!("volume expand {uid} --capacity 9Mi --wait");
    let (code, says) = failure(&bench, &line).await;
    assert_eq!(code, 3, "{says}");
    let shown = out(&bench, &format!("volume show {uid}")).await;
    assert!(shown.contains("to 9Mi: "), "{shown}");
    assert!(shown.contains("told to fail"), "{shown}");

    assert_eq!(out(&bench, "volume orphans -o json").await, "[]\n");
    let stray = "pool/av-0190f1c2-7a4b-7c3d-8e5f-0123456789ab";
    let volume = crate::recorder::Volume::default();
    bench.driver.world().volumes.insert(stray.into(), volume);
    let listed = out(&bench, "volume orphans").await;
    assert!(listed.contains(stray), "{listed}");
    let (code, says) = failure(&bench, "volume orphans --delete nothing").await;
    assert_eq!(code, 5, "{says}");
    let deleted = out(&bench, &format!("volume orphans --delete {stray}")).await;
    assert!(deleted.contains("yes"), "{deleted}");
    assert!(!bench.driver.world().volumes.contains_key(stray));
}

#[tokio::test]
async fn what_is_in_doubt_is_told_to_whoever_looks() {
    let mut bench = Bench::recorded(|_| {}).await;
    bench.catalog().await;
    for _ in 0..1000 {
        bench
            .driver
            .fault("CreateVolume", Code::DeadlineExceeded, true);
    }
    bench.create("a", false).await.unwrap();
    let uid = bench.until_volume("in doubt", |v| v.uncertain).await.uid;
    let shown = out(&bench, &format!("volume show {uid}")).await;
    assert!(shown.contains("CreateVolume may be done or not"), "{shown}");
    assert!(shown.contains("next try"), "{shown}");
}
