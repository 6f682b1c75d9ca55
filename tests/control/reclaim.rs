// SPDX-License-Identifier: Apache-2.0
//! Volumes that outlive their actor, or their place in its template: listed,
//! deleted by themselves, or taken over.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::csi::Fault;

use crate::{
    bench::Bench,
    cli::{failure, out},
    updates::{POOL, apply, bench, class, json, volume_of},
};

const KEPT: &str = "capacity: 1Mi, storageClassName: pool, reclaimPolicy: Retain";

/// The uid of the volume `a` of an actor that is gone; it had one generation.
async fn retained(bench: &Bench) -> String {
    apply(bench, &[("a", KEPT)]).await;
    out(bench, "actor create agents/a --template t --wait").await;
    out(bench, "actor resume agents/a").await;
    out(bench, "actor suspend agents/a --wait").await;
    out(bench, "actor delete agents/a --wait").await;
    let listed = json(bench, "volume ls --retained").await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["actor"], "agents/a");
    assert_eq!(listed[0]["phase"], "Retained");
    listed[0]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_retained_volume_is_listed_and_deleted_by_itself() {
    let bench = bench().await;
    let uid = retained(&bench).await;
    let bench = bench.restart().await;
    // An actor of the same name is another one.
    out(&bench, "actor create agents/a --template t --wait").await;
    let own = volume_of(&bench, "a", false).await.unwrap()["uid"].clone();
    let own = own.as_str().unwrap();
    let (code, says) = failure(&bench, &format!("volume delete {own}")).await;
    assert_eq!(code, 5);
    assert!(says.contains("belongs to actor agents/a"), "{says}");

    // The server ends while the driver refuses.
    let no = Fault::fail(tonic::Code::Internal);
    bench.driver.fault("DeleteVolume", no);
    out(&bench, &format!("volume delete {uid}")).await;
    let line = format!("volume delete {uid} --wait --timeout 300ms");
    let (_, says) = failure(&bench, &line).await;
    assert!(says.contains("not deleted yet"), "{says}");
    let bench = bench.restart().await;
    bench.driver.clear_faults();
    let end = Instant::now() + Duration::from_secs(30);
    while out(&bench, "volume ls").await.contains(&uid) {
        assert!(Instant::now() < end, "it was not deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.driver.volumes().len(), 1);
    let (code, says) = failure(&bench, &format!("volume delete {uid} --wait")).await;
    assert_eq!(code, 4, "{says}");
    // The other actor of that name has its grant and its volume.
    out(&bench, "actor resume agents/a").await;
    bench.kept_the_rules();
}

#[tokio::test]
async fn a_volume_is_retained_by_the_template_whatever_its_class_says() {
    let bench = bench().await;
    class(&bench, "keeper", "reclaimPolicy: Retain\n").await;
    let keeper = "capacity: 1Mi, storageClassName: keeper";
    let dropped = format!("{keeper}, reclaimPolicy: Delete");
    apply(&bench, &[("a", KEPT), ("b", keeper), ("c", &dropped)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    out(&bench, "actor delete agents/a --wait").await;
    let listed = json(&bench, "volume ls --retained").await;
    let mut names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["name"])
        .collect();
    names.sort_by_key(|n| n.to_string());
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn a_complete_rollout_retains_what_it_is_told_to() {
    let bench = bench().await;
    apply(&bench, &[("a", KEPT), ("b", POOL)]).await;
    out(&bench, "actor create agents/a --template t --wait").await;
    let uid = volume_of(&bench, "a", false).await.unwrap()["uid"].clone();
    apply(&bench, &[("b", POOL)]).await;
    out(&bench, "actor update agents/a").await;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let listed = json(&bench, "volume ls --retained").await;
        if listed[0]["uid"] == uid {
            break;
        }
        assert!(Instant::now() < end, "never retained: {listed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(volume_of(&bench, "a", true).await.is_none());
    let bench = bench.restart().await;
    assert!(volume_of(&bench, "a", true).await.is_none());
    // It belongs to nobody: its actor goes without it.
    out(&bench, "actor delete agents/a --wait").await;
    let listed = json(&bench, "volume ls").await;
    assert_eq!(listed[0]["uid"], uid);
    assert_eq!(bench.driver.volumes().len(), 1);
}

#[tokio::test]
async fn a_new_actor_adopts_a_retained_volume_and_its_generation_goes_on() {
    let bench = bench().await;
    let uid = retained(&bench).await;
    let line = format!("actor create agents/n --template t --adopt a={uid} --wait");
    out(&bench, &line).await;
    let bench = bench.restart().await;
    // The same again is harmless; another actor comes too late.
    out(&bench, &line).await;
    let late = format!("actor create agents/late --template t --adopt a={uid}");
    let (code, says) = failure(&bench, &late).await;
    assert_eq!(code, 5, "{says}");
    assert!(
        says.contains("not retained") && says.contains("agents/n"),
        "{says}"
    );
    assert_eq!(failure(&bench, "actor show agents/late").await.0, 4);
    let annotations: Value =
        serde_json::from_str(&out(&bench, "actor resume agents/n").await).unwrap();
    let attachments = annotations["actor-volumes.dev/attachments"]
        .as_str()
        .unwrap();
    assert!(attachments.contains(&uid) && attachments.contains("\"generation\":2"));
    assert_eq!(bench.driver.count("CreateVolume"), 1);
    let (code, says) = failure(&bench, &format!("volume delete {uid}")).await;
    assert_eq!(code, 5, "{says}");
    assert_eq!(
        json(&bench, "volume ls --retained").await,
        Value::Array(vec![])
    );
    bench.kept_the_rules();
}

#[tokio::test]
async fn of_two_adopters_one_wins() {
    let bench = bench().await;
    let uid = retained(&bench).await;
    let create = |name: &str| format!("actor create agents/{name} --template t --adopt a={uid}");
    let (x, y) = (create("x"), create("y"));
    let (x, y) = tokio::join!(crate::cli::run(&bench, &x), crate::cli::run(&bench, &y));
    let mut codes = [x.status.code().unwrap(), y.status.code().unwrap()];
    codes.sort_unstable();
    assert_eq!(codes, [0, 5]);
    let actors = json(&bench, "actor ls").await;
    assert_eq!(actors.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_volume_that_does_not_fit_is_refused_by_name() {
    let bench = bench().await;
    let uid = retained(&bench).await;
    let refused = async |line: String, says: &str| {
        let (code, told) = failure(&bench, &line).await;
        assert_eq!(code, 5, "{told}");
        assert!(told.contains(&uid) && told.contains(says), "{told}");
    };
    let elsewhere = format!("actor create others/n --template t --adopt a={uid}");
    refused(elsewhere, "namespace is agents").await;
    apply(
        &bench,
        &[
            ("a", "capacity: 9Mi, storageClassName: pool"),
            ("b", "capacity: 1Mi, storageClassName: fixed"),
        ],
    )
    .await;
    let create = |name: &str| format!("actor create agents/n --template t --adopt {name}={uid}");
    refused(create("a"), "are asked for").await;
    refused(create("b"), "class is pool").await;
    let (code, told) = failure(&bench, &create("nothing")).await;
    assert_eq!(code, 3, "{told}");
    let listed = json(&bench, "volume ls --retained").await;
    assert_eq!(listed[0]["uid"], uid.as_str());
}

#[tokio::test]
async fn a_retained_volume_is_named_at_resume_where_none_was_made() {
    let bench = bench().await;
    class(&bench, "late", "volumeBindingMode: WaitForFirstConsumer\n").await;
    let late = "capacity: 1Mi, storageClassName: late, reclaimPolicy: Retain";
    apply(&bench, &[("a", late)]).await;
    for name in ["x", "y"] {
        out(
            &bench,
            &format!("actor create agents/{name} --template t --wait"),
        )
        .await;
        out(&bench, &format!("actor resume agents/{name}")).await;
        out(&bench, &format!("actor suspend agents/{name} --wait")).await;
        out(&bench, &format!("actor delete agents/{name} --wait")).await;
    }
    let listed = json(&bench, "volume ls --retained").await;
    let uid = |n: usize| listed[n]["uid"].as_str().unwrap().to_owned();
    let (ours, other) = (uid(0), uid(1));
    out(&bench, "actor create agents/n --template t --wait").await;
    let line = format!("actor resume agents/n --volume a={ours}");
    let first = out(&bench, &line).await;
    assert!(
        first.contains(&ours) && first.contains("\\\"generation\\\":2"),
        "{first}"
    );
    let bench = bench.restart().await;
    assert_eq!(out(&bench, &line).await, first);
    let another = format!("actor resume agents/n --volume a={other}");
    for _ in 0..2 {
        let (code, says) = failure(&bench, &another).await;
        assert_eq!(code, 5, "{says}");
        assert!(says.contains(&ours), "{says}");
        out(&bench, "actor suspend agents/n --wait").await;
    }
    out(&bench, &line).await;
    assert_eq!(bench.driver.count("CreateVolume"), 2);
    bench.kept_the_rules();
}
