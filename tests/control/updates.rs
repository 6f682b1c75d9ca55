// SPDX-License-Identifier: Apache-2.0
//! What the next revision of a template may say, through the command line.

use std::process::Output;

use serde_json::Value;
use testkit::csi::{Expansion, Fault};

use crate::{
    bench::{Bench, DRIVER, actor},
    cli::{failure, out, run_with},
};

/// A template `t` with these volumes, each with the fields of its source.
pub(crate) fn template(volumes: &[(&str, &str)]) -> String {
    let mut text =
        "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - volumeMounts:\n"
            .to_owned();
    for (name, _) in volumes {
        text += &format!("    - {{name: {name}, mountPath: /{name}}}\n");
    }
    text += "  volumes:\n";
    for (name, fields) in volumes {
        text += &format!("  - name: {name}\n    externalVolumeTemplate: {{{fields}}}\n");
    }
    text
}

pub(crate) async fn try_apply(bench: &Bench, volumes: &[(&str, &str)]) -> Output {
    run_with(bench, "template apply -f -", &template(volumes)).await
}

/// Applies it; the revision that it became.
pub(crate) async fn apply(bench: &Bench, volumes: &[(&str, &str)]) -> u64 {
    let output = try_apply(bench, volumes).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let shown = out(bench, "template show t -o json").await;
    assert!(!shown.is_empty());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let number = stdout.trim_end().trim_end_matches(')').rsplit(' ').next();
    number.unwrap().parse().unwrap()
}

pub(crate) async fn class(bench: &Bench, name: &str, more: &str) {
    let text =
        format!("kind: StorageClass\nmetadata: {{name: {name}}}\nprovisioner: {DRIVER}\n{more}");
    let output = run_with(bench, "storageclass apply -f -", &text).await;
    assert_eq!(output.status.code(), Some(0));
}

pub(crate) async fn json(bench: &Bench, line: &str) -> Value {
    serde_json::from_str(&out(bench, &format!("{line} -o json")).await).unwrap()
}

/// The volume of that name of `agents/a`, of those that are bound or not.
pub(crate) async fn volume_of(bench: &Bench, name: &str, unbound: bool) -> Option<Value> {
    let shown = json(bench, "actor show agents/a").await;
    let volumes = shown["volumes"].as_array().unwrap().clone();
    let mut volumes = volumes.into_iter();
    volumes.find(|v| v["name"] == name && v["unbound"] == unbound)
}

/// A driver that attaches and lets volumes grow.
pub(crate) async fn bench() -> Bench {
    let bench = Bench::hostile(|options| {
        options.attach = true;
        options.expand_controller = true;
        options.expansion = Some(Expansion::Online);
        options.node_expansion_required = false;
    })
    .await;
    class(&bench, "pool", "allowVolumeExpansion: true\n").await;
    class(&bench, "fixed", "").await;
    bench
}

pub(crate) const POOL: &str = "capacity: 1Mi, storageClassName: pool";

/// The refusal of a template that follows one with `last`, as people read it.
async fn refusal(bench: &Bench, last: &str, next: &str) -> String {
    let before = apply(bench, &[("a", last)]).await;
    let output = try_apply(bench, &[("a", next)]).await;
    assert_eq!(output.status.code(), Some(3), "{next} was not refused");
    // Nothing was stored.
    assert_eq!(apply(bench, &[("a", last)]).await, before);
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_volume_keeps_its_class_and_how_it_is_used() {
    let bench = bench().await;
    for (field, more) in [
        ("accessMode", "accessMode: ReadWriteMany"),
        ("fsType", "fsType: xfs"),
        ("fsGroup", "fsGroup: 7"),
        ("mountOptions", "mountOptions: [noatime]"),
    ] {
        let says = refusal(&bench, POOL, &format!("{POOL}, {more}")).await;
        let path = format!("spec.volumes[0].externalVolumeTemplate.{field}: cannot change");
        assert!(says.contains(&path), "{says}");
    }
    let other = "capacity: 1Mi, storageClassName: fixed";
    let says = refusal(&bench, POOL, other).await;
    assert!(says.contains("storageClassName: cannot change from pool to fixed"));
}

#[tokio::test]
async fn a_volume_keeps_its_mode() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    let text = format!(
        "kind: ActorTemplate\nmetadata: {{name: t}}\nspec:\n  containers:\n  - volumeDevices: [{{name: a, devicePath: /dev/a}}]\n  volumes:\n  - name: a\n    externalVolumeTemplate: {{{POOL}, volumeMode: Block}}\n"
    );
    let output = run_with(&bench, "template apply -f -", &text).await;
    assert_eq!(output.status.code(), Some(3));
    let says = String::from_utf8(output.stderr).unwrap();
    assert!(
        says.contains("volumeMode: cannot change from Filesystem to Block"),
        "{says}"
    );
}

#[tokio::test]
async fn a_volume_never_shrinks_and_grows_only_where_its_class_allows_it() {
    let bench = bench().await;
    let small = "capacity: 512Ki, storageClassName: pool";
    let says = refusal(&bench, POOL, small).await;
    assert!(
        says.contains("externalVolumeTemplate.capacity: cannot shrink"),
        "{says}"
    );
    let fixed = "capacity: 1Mi, storageClassName: fixed";
    apply(&bench, &[("b", fixed)]).await;
    let output = try_apply(&bench, &[("b", "capacity: 2Mi, storageClassName: fixed")]).await;
    let says = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(says.contains("capacity: cannot grow"), "{says}");
    assert!(says.contains("allowVolumeExpansion"), "{says}");
}

#[tokio::test]
async fn an_actor_moves_at_its_next_resume_and_not_before() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    let first = out(&bench, "actor resume agents/a").await;
    let grown = "capacity: 3Mi, storageClassName: pool";
    assert_eq!(apply(&bench, &[("a", grown), ("b", POOL)]).await, 2);
    // One that is resumed stays as it is.
    assert_eq!(out(&bench, "actor resume agents/a").await, first);
    let (code, says) = failure(&bench, "actor update agents/a").await;
    assert_eq!(code, 5, "{says}");
    out(&bench, "actor suspend agents/a --wait").await;
    assert_eq!(
        json(&bench, "actor show agents/a").await["templateRevision"],
        1
    );

    let bench = bench.restart().await;
    let second = out(&bench, "actor resume agents/a").await;
    assert!(second.contains("/b") && !first.contains("/b"), "{second}");
    assert_eq!(
        json(&bench, "actor show agents/a").await["templateRevision"],
        2
    );
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    let generations: Vec<_> = grant.volumes.iter().map(|v| v.generation.0).collect();
    assert_eq!(generations, [2, 1]);
    let uid = volume_of(&bench, "a", false).await.unwrap()["uid"].clone();
    let line = format!(
        "volume expand {} --capacity 3Mi --wait",
        uid.as_str().unwrap()
    );
    let grown = out(&bench, &line).await;
    assert!(grown.contains("has 3Mi"), "{grown}");
    bench.kept_the_rules();
}

#[tokio::test]
async fn a_suspended_actor_is_updated_without_a_resume() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    apply(&bench, &[("a", POOL), ("b", POOL)]).await;
    let (code, says) = failure(&bench, "actor update agents/a --revision 1").await;
    assert_eq!(code, 5);
    assert!(says.contains("template rollback"), "{says}");
    // The update outlives the server that was told of it.
    bench.driver.fault("CreateVolume", Fault::hang());
    out(&bench, "actor update agents/a --revision 2").await;
    bench.driver.clear_faults();
    let bench = bench.restart().await;
    let done = out(&bench, "actor update agents/a --wait").await;
    assert_eq!(done, "actor agents/a is on revision 2 of template t\n");
    let b = volume_of(&bench, "b", false).await.unwrap();
    assert_eq!(b["phase"], "Ready");
    bench.kept_the_rules();
}

#[tokio::test]
async fn revisions_that_nobody_is_on_are_dropped_but_for_the_last_ten() {
    let bench = bench().await;
    apply(&bench, &[("a", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    for n in 2..=14 {
        let grown = format!("capacity: {n}Mi, storageClassName: pool");
        assert_eq!(apply(&bench, &[("a", &grown)]).await, n);
    }
    let status = json(&bench, "template status t").await;
    let kept = status["revisions"].as_array().unwrap().iter();
    let kept: Vec<_> = kept.map(|r| r["revision"].as_u64().unwrap()).collect();
    let wanted: Vec<u64> = std::iter::once(1).chain(5..=14).collect();
    assert_eq!(kept, wanted);
    assert_eq!(status["complete"], false);
}
