// SPDX-License-Identifier: Apache-2.0
//! What the verbs promise while everything works.

use actor_volumes::{
    api::annotation,
    error::{Error, Kind},
    model::Audience,
    proto::api::{self, Applied},
};

use crate::bench::{Bench, actor, resume, until};

fn refused<T>(answer: Result<T, Error>, kind: Kind, says: &str) {
    let Err(error) = answer else {
        panic!("it was not refused, though {says}");
    };
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.full_message().contains(says), "{error:?}");
}

#[tokio::test]
async fn an_actor_lives_from_create_to_delete() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    let made = bench.create("a", true).await.unwrap();
    assert_eq!(
        (made.phase.as_str(), made.volumes[0].phase.as_str()),
        ("Suspended", "Ready")
    );
    assert_eq!(bench.control.current_grant(&actor("a")), None);

    let first = bench.resume("a").await.unwrap();
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(grant.generation().0, 1);
    assert!(grant.volumes[0].publish_context.contains_key("token"));
    let attachments = &first.annotations["actor-volumes.dev/attachments"];
    assert!(attachments.contains(&grant.volumes[0].volume_id));
    assert!(!attachments.contains("token"), "a context is handed out");
    // The very same word again.
    assert_eq!(
        bench.resume("a").await.unwrap().annotations,
        first.annotations
    );

    bench.node.hold("pod p");
    let suspended = bench.suspend("a", false).await.unwrap();
    assert_eq!(suspended.phase, "Suspending");
    assert_eq!(bench.control.current_grant(&actor("a")), None);
    let id = grant.volumes[0].volume_id.clone();
    assert_eq!(bench.node.revoked.lock().unwrap()[&id], 1);
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 0);
    refused(
        bench.resume("a").await,
        Kind::Aborted,
        "still being suspended",
    );

    bench.node.release();
    bench.until("a", "Suspended").await;
    assert_eq!(bench.driver.count("ControllerUnpublishVolume"), 1);
    bench.suspend("a", true).await.unwrap();

    bench.resume("a").await.unwrap();
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(
        (grant.generation().0, grant.volumes[0].volume_id.clone()),
        (2, id.clone())
    );
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    let forgotten = || bench.node.forgotten.lock().unwrap().clone();
    until("the node forgets it", || forgotten() == [id.clone()]).await;
    refused(bench.delete("a", true).await, Kind::NotFound, "agents/a");
    refused(bench.show("a").await, Kind::NotFound, "agents/a");
    assert!(bench.volumes().await.is_empty());
    bench.is_clean();
}

#[tokio::test]
async fn a_driver_that_does_not_attach_is_never_asked_to() {
    let mut bench = Bench::with(|_| {}).await;
    bench.catalog().await;
    bench.create("a", false).await.unwrap();
    bench.resume("a").await.unwrap();
    let shown = bench.show("a").await.unwrap();
    assert_eq!(shown.volumes[0].attachments[0].phase, "Attached");
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    assert_eq!(bench.driver.count("ControllerPublishVolume"), 0);
    bench.is_clean();
}

#[tokio::test]
async fn repeating_create_is_harmless_and_another_content_is_refused() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    let first = bench.create("a", true).await.unwrap();
    let again = bench.create("a", true).await.unwrap();
    assert_eq!(first.uid, again.uid);
    assert_eq!(bench.driver.count("CreateVolume"), 1);
    bench.template("other", "1Mi").await.unwrap();
    let request = api::CreateActorRequest {
        namespace: "agents".into(),
        name: "a".into(),
        template: "other".into(),
        ..Default::default()
    };
    let other = bench.client.create_actor(request).await;
    refused(other, Kind::AlreadyExists, "exists with template t");
}

#[tokio::test]
async fn what_an_actor_needs_must_be_there_at_create() {
    let mut bench = Bench::new().await;
    refused(bench.create("a", true).await, Kind::NotFound, "template t");
    bench.template("t", "1Mi").await.unwrap();
    refused(
        bench.create("a", true).await,
        Kind::FailedPrecondition,
        "class pool",
    );
    let text = "kind: StorageClass\nmetadata: {name: pool}\nprovisioner: no.such.driver\n";
    let request = api::ApplyStorageClassRequest { text: text.into() };
    bench.client.apply_storage_class(request).await.unwrap();
    refused(
        bench.create("a", true).await,
        Kind::FailedPrecondition,
        "no.such.driver",
    );
    assert!(bench.volumes().await.is_empty());
}

#[tokio::test]
async fn a_changed_template_is_the_next_revision_for_new_actors_and_for_others_at_their_next_resume()
 {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    let same = bench.template("t", "1024Ki").await.unwrap();
    assert_eq!(same.applied, i32::from(Applied::Unchanged));
    bench.create("a", false).await.unwrap();
    let uses = "volumeMounts: [{name: vol1, mountPath: /elsewhere}]";
    let next = bench.template_that("t", uses, "capacity: 1Mi");
    let next = next.await.unwrap();
    assert_eq!(next.applied, i32::from(Applied::Changed));
    bench.create("b", true).await.unwrap();
    let a = bench.show("a").await.unwrap();
    let b = bench.show("b").await.unwrap();
    assert_eq!((a.template_revision, b.template_revision), (1, 2));
    bench.resume("a").await.unwrap();
    let grant = bench.control.current_grant(&actor("a")).unwrap();
    assert_eq!(grant.mounts[0].mount_path, "/elsewhere");
    let a = bench.show("a").await.unwrap();
    assert_eq!(a.template_revision, 2);
}

#[tokio::test]
async fn a_resumed_actor_is_neither_deleted_nor_resumed_elsewhere() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    let says = "is resumed on node node-a: suspend it first";
    refused(
        bench.delete("a", true).await,
        Kind::FailedPrecondition,
        says,
    );
    let mut elsewhere = resume("a");
    elsewhere.pod = "another".into();
    let answer = bench.client.resume_actor(elsewhere.clone()).await;
    refused(answer, Kind::FailedPrecondition, "suspend it first");
    elsewhere.node = "node-b".into();
    let answer = bench.client.resume_actor(elsewhere).await;
    refused(answer, Kind::FailedPrecondition, "node-b");
    assert_eq!(bench.volumes().await[0].generation, 1);
}

#[tokio::test]
async fn a_grant_is_for_pods_or_for_a_container_of_the_host_and_says_so() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    let mut both = resume("a");
    both.host = true;
    both.pod = "p".into();
    refused(
        bench.client.resume_actor(both).await,
        Kind::InvalidInput,
        "not both",
    );
    let mut no_host = resume("a");
    no_host.host_container = "c1".into();
    refused(
        bench.client.resume_actor(no_host).await,
        Kind::InvalidInput,
        "host_container",
    );
    let mut host = resume("a");
    host.host = true;
    let any = bench.client.resume_actor(host.clone()).await.unwrap();
    let audience = |answer: api::ResumeActorResponse| {
        let presented = annotation::read(&answer.annotations.into_iter().collect());
        presented.unwrap().unwrap().grant.audience
    };
    let node = "node-a".parse().unwrap();
    let container = None;
    assert_eq!(audience(any), Audience::Host { node, container });
    // Resumed once, it is not for another one.
    host.host_container = "c1".into();
    refused(
        bench.client.resume_actor(host.clone()).await,
        Kind::FailedPrecondition,
        "suspend it first",
    );
    refused(
        bench.resume("a").await,
        Kind::FailedPrecondition,
        "suspend it first",
    );
    bench.suspend("a", true).await.unwrap();
    let one = bench.client.resume_actor(host).await.unwrap();
    let node = "node-a".parse().unwrap();
    let container = Some("c1".to_owned());
    assert_eq!(audience(one), Audience::Host { node, container });
}

#[tokio::test]
async fn a_class_in_use_keeps_its_provisioner_and_parameters() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench
        .class("pool", "parameters: {tier: a}\n")
        .await
        .unwrap();
    bench.create("a", true).await.unwrap();
    let changed = bench.class("pool", "parameters: {tier: b}\n").await;
    refused(
        changed,
        Kind::FailedPrecondition,
        "parameters of storage class pool",
    );
    bench
        .class("pool", "parameters: {tier: a}\nreclaimPolicy: Retain\n")
        .await
        .unwrap();
    bench.delete("a", true).await.unwrap();
    bench
        .class("pool", "parameters: {tier: b}\n")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_volume_for_its_first_consumer_is_made_at_the_first_resume() {
    let mut bench = Bench::new().await;
    let binding = "volumeBindingMode: WaitForFirstConsumer\n";
    bench.class("pool", binding).await.unwrap();
    bench.template("t", "1Mi").await.unwrap();
    let made = bench.create("a", true).await.unwrap();
    assert_eq!(made.volumes[0].phase, "Pending");
    assert_eq!(bench.driver.count("CreateVolume"), 0);
    bench.resume("a").await.unwrap();
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    bench.is_clean();
}

#[tokio::test]
async fn a_retained_volume_outlives_its_actor_and_keeps_its_class_in_use() {
    let mut bench = Bench::new().await;
    bench
        .class("pool", "reclaimPolicy: Retain\n")
        .await
        .unwrap();
    bench.template("t", "1Mi").await.unwrap();
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench.suspend("a", true).await.unwrap();
    bench.delete("a", true).await.unwrap();
    let mut bench = bench.restart().await;
    let kept = bench.volumes().await;
    assert_eq!(
        (kept[0].phase.as_str(), kept[0].generation),
        ("Retained", 1)
    );
    assert_eq!(bench.driver.volumes(), [kept[0].volume_id.clone()]);
    // A new actor of that name has a volume of its own.
    bench.create("a", true).await.unwrap();
    assert_eq!(bench.volumes().await.len(), 2);
    let changed = bench.class("pool", "parameters: {x: y}\n").await;
    refused(changed, Kind::FailedPrecondition, "while volumes use it");
    bench.kept_the_rules();
}

#[tokio::test]
async fn deletion_asked_for_while_suspending_follows_it() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench.node.hold("pod p");
    bench.suspend("a", false).await.unwrap();
    bench.delete("a", false).await.unwrap();
    bench.delete("a", false).await.unwrap();
    refused(
        bench.create("a", true).await,
        Kind::Aborted,
        "still being deleted",
    );
    refused(
        bench.resume("a").await,
        Kind::Aborted,
        "being deleted by delete",
    );
    assert_eq!(bench.driver.count("DeleteVolume"), 0);
    bench.node.release();
    // The second asks of one that is going, or gone.
    match bench.delete("a", true).await {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), Kind::NotFound),
    }
    bench.is_clean();
}

#[tokio::test]
async fn a_wait_that_is_too_short_says_who_holds_the_volume() {
    let mut bench = Bench::new().await;
    bench.catalog().await;
    bench.create("a", true).await.unwrap();
    bench.resume("a").await.unwrap();
    bench.node.hold("pod agents/p");
    let request = api::SuspendActorRequest {
        namespace: "agents".into(),
        name: "a".into(),
        wait: true,
        timeout_ms: 300,
        ..Default::default()
    };
    let answer = bench.client.suspend_actor(request).await;
    refused(
        answer,
        Kind::DeadlineExceeded,
        "held on node node-a by pod agents/p",
    );
    let shown = bench.show("a").await.unwrap();
    assert_eq!(shown.volumes[0].attachments[0].held_by, "pod agents/p");
    bench.node.release();
    bench.until("a", "Suspended").await;
}

#[tokio::test]
async fn every_problem_of_a_template_comes_back_at_once() {
    let mut bench = Bench::new().await;
    let text = "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - volumeMounts: [{name: nope, mountPath: relative}]\n  volumes:\n  - name: vol1\n    externalVolumeTemplate: {capacity: none, storageClassName: pool}\n";
    let request = api::ApplyTemplateRequest { text: text.into() };
    let error = bench.client.apply_template(request).await.err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidInput);
    let message = error.full_message();
    for part in ["mountPath", "capacity", "nope"] {
        assert!(message.contains(part), "{message}");
    }
}
