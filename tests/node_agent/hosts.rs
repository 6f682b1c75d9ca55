// SPDX-License-Identifier: Apache-2.0
//! Containers that no pod holds: what they are given, and how their end is found.

use std::{
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use actor_volumes::{
    api::annotation,
    delivery::{Spec, SpecMount},
    error::{Error, Kind, Result},
    host::process,
    model::{Audience, ContainerView, Generation, Grant},
    proto::api::{
        Door, GiveContainerRequest, GiveContainerResponse, Process, ReleaseContainerRequest,
        ReleaseContainerResponse,
    },
};

use crate::node::{Elsewhere, Node, Over, Setup};

/// A process that makes a container.
struct Maker(Child);

impl Maker {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn process(&self) -> Process {
        told(self.0.id())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn told(pid: u32) -> Process {
    Process {
        pid,
        start_time: process::start_time(pid).unwrap().unwrap(),
    }
}

async fn start() -> Node {
    let setup = Setup {
        no_cri: true,
        ..Setup::default()
    };
    Node::over(Over::Bind, setup, |_| ()).await
}

fn for_host(node: &Node, generation: u64, container: Option<&str>) -> Grant {
    let mut grant = node.grant(generation);
    grant.audience = Audience::Host {
        node: grant.node.clone(),
        container: container.map(str::to_owned),
    };
    grant
}

fn asked(node: &Node, id: &str, grant: &Grant, process: Process) -> GiveContainerRequest {
    let key = node.keys().signing().unwrap();
    let annotations = annotation::write_signed(grant, |text| key.sign(text)).unwrap();
    GiveContainerRequest {
        door: Door::Runtime.into(),
        container_id: id.into(),
        runtime_root: "/run/runc".into(),
        bundle: node.dir.path().display().to_string(),
        annotations: annotations.into_iter().collect(),
        process: Some(process),
        wait_ms: 5_000,
        ..GiveContainerRequest::default()
    }
}

async fn give(node: &Node, id: &str, maker: &Maker) -> Result<GiveContainerResponse> {
    let grant = for_host(node, 1, None);
    node.agent
        .give_container(asked(node, id, &grant, maker.process()))
        .await
}

async fn release(node: &Node, id: &str, after: Option<Process>) -> ReleaseContainerResponse {
    let request = ReleaseContainerRequest {
        container_id: id.into(),
        runtime_root: "/run/runc".into(),
        bundle: String::new(),
        after,
        wait_ms: 300,
    };
    node.agent.release_container(request).await.unwrap()
}

async fn held(node: &Node) -> String {
    node.agent.held(&node.key()).await.unwrap_or_default()
}

/// Sweeps come every 200 ms.
async fn some_sweeps() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_container_keeps_its_volume_while_its_maker_lives_or_anyone_has_it_mounted() {
    let node = start().await;
    let maker = Maker::start();
    let given = give(&node, "c1", &maker).await.unwrap();
    let mount = &given.mounts[0];
    assert_eq!(mount.destination, "/my-data");
    assert_eq!(
        mount.options,
        ["rbind", "rprivate", "rw", "nosuid", "nodev"]
    );
    assert!(mount.source.starts_with(&given.mount_root));
    let source = Path::new(&mount.source);
    std::fs::write(source.join("f"), "kept").unwrap();
    some_sweeps().await;
    assert!(source.join("f").exists(), "its maker lives");

    let inside = node.dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let container = Elsewhere::start("mount --bind \"$1\" \"$2\";", &[source, &inside]);
    drop(maker);
    some_sweeps().await;
    assert!(source.join("f").exists(), "it is mounted in a container");
    drop(container);
    node.until_released().await;
    assert!(!source.exists());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn one_at_a_time_has_a_volume_of_one_writer_and_the_next_comes_when_it_is_gone() {
    let node = start().await;
    let first = Maker::start();
    give(&node, "c1", &first).await.unwrap();
    let second = Maker::start();
    for id in ["c1", "c2"] {
        let refused = give(&node, id, &second).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        let text = refused.full_message();
        assert!(text.contains("container c1 of oci:/run/runc"), "{text}");
    }
    let is_one = async || node.records().matches("\"birth\"").count() == 1;
    node.until("only the first is on record", is_one).await;
    drop(first);
    // Of the same id: nothing of the first is taken for it.
    give(&node, "c1", &second).await.unwrap();
    drop(second);
    node.until_released().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_a_door_releases_goes_when_its_process_has() {
    let node = start().await;
    let maker = Maker::start();
    give(&node, "c1", &maker).await.unwrap();
    assert!(release(&node, "another", None).await.released);
    let waits = release(&node, "c1", None).await;
    assert!(!waits.released);
    assert!(
        waits.held_by.contains("of its container lives"),
        "{}",
        waits.held_by
    );
    drop(maker);
    node.until_released().await;
    assert!(release(&node, "c1", None).await.released);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_container_that_is_being_deleted_is_released_after_its_deleter_and_not_if_it_failed() {
    let node = start().await;
    let maker = Maker::start();
    give(&node, "c1", &maker).await.unwrap();
    let deleter = Maker::start();
    assert!(!release(&node, "c1", Some(deleter.process())).await.released);
    drop(deleter);
    some_sweeps().await;
    assert!(held(&node).await.contains("container c1"), "it failed");
    drop(maker);
    let deleter = Maker::start();
    let gone = deleter.process();
    drop(deleter);
    release(&node, "c1", Some(gone)).await;
    node.until_released().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_is_written_into_a_bundle_stays_with_it() {
    let mut node = start().await;
    let bundle = node.dir.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    let grant = for_host(&node, 1, Some("c1"));
    let request = || GiveContainerRequest {
        door: Door::Bundle.into(),
        bundle: bundle.display().to_string(),
        runtime_root: String::new(),
        ..asked(&node, "c1", &grant, told(std::process::id()))
    };
    let given = node.agent.give_container(request()).await.unwrap();
    let again = node.agent.give_container(request()).await.unwrap();
    assert_eq!(given.mounts[0].source, again.mounts[0].source);
    some_sweeps().await;
    node.restart().await;
    some_sweeps().await;
    assert!(Path::new(&given.mounts[0].source).exists());
    std::fs::remove_dir(&bundle).unwrap();
    node.until_released().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_agent_that_starts_again_sees_what_lives_and_what_is_gone() {
    let mut node = start().await;
    let maker = Maker::start();
    let given = give(&node, "c1", &maker).await.unwrap();
    node.restart().await;
    some_sweeps().await;
    assert!(Path::new(&given.mounts[0].source).exists());
    drop(maker);
    node.until_released().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn only_a_signed_grant_for_this_container_of_this_host_counts() {
    let node = start().await;
    let maker = Maker::start();
    let refused = async |request| -> Error {
        let given = node.agent.give_container(request).await;
        given.map(drop).expect_err("it is to be refused")
    };
    let pods = asked(&node, "c1", &node.grant(1), maker.process());
    let error = refused(pods).await;
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("--host"), "{error}");
    let other = for_host(&node, 1, Some("c2"));
    let error = refused(asked(&node, "c1", &other, maker.process())).await;
    assert!(error.to_string().contains("\"c2\""), "{error}");
    let mut elsewhere = for_host(&node, 1, None);
    elsewhere.node = "node-b".parse().unwrap();
    elsewhere.audience = Audience::Host {
        node: elsewhere.node.clone(),
        container: None,
    };
    let error = refused(asked(&node, "c1", &elsewhere, maker.process())).await;
    assert!(error.to_string().contains("node-b"), "{error}");

    let good = for_host(&node, 1, Some("c1"));
    let mut unsigned = asked(&node, "c1", &good, maker.process());
    unsigned.annotations.remove(annotation::SIGNATURE);
    let error = refused(unsigned).await;
    assert!(error.to_string().contains("unsigned"), "{error}");
    // The one that would show it lives was another one.
    let mut unseen = asked(&node, "c1", &good, maker.process());
    unseen.process.as_mut().unwrap().start_time += 1;
    let error = refused(unseen).await;
    assert!(error.to_string().contains("hostPID"), "{error}");
    let mut no_process = asked(&node, "c1", &good, maker.process());
    no_process.process = None;
    assert_eq!(refused(no_process).await.kind(), Kind::InvalidInput);
    assert_eq!(node.records(), "", "nothing was changed");

    let request = asked(&node, "c1", &good, maker.process());
    node.agent.give_container(request).await.unwrap();
    node.agent.revoke(&node.key(), Generation(1)).await.unwrap();
    let error = refused(asked(&node, "c1", &good, maker.process())).await;
    assert!(error.to_string().contains("is over"), "{error}");
    drop(maker);
    node.until_released().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_specification_that_holds_what_was_given_passes_the_check_and_no_other_does() {
    let node = start().await;
    let maker = Maker::start();
    let given = give(&node, "c1", &maker).await.unwrap();
    let mount = |source: &str| Spec {
        mounts: vec![SpecMount {
            destination: "/my-data".into(),
            source: source.into(),
            kind: "bind".into(),
            options: given.mounts[0].options.clone(),
        }],
        devices: Vec::new(),
    };
    let right = mount(&given.mounts[0].source);
    let request = asked(&node, "c1", &for_host(&node, 1, None), maker.process());
    let container = |id: &str| ContainerView {
        id: id.into(),
        annotations: request.annotations.clone().into_iter().collect(),
        ..ContainerView::default()
    };
    let check = async |id: &str, root: &str, spec: &Spec| {
        let place = (Some(Path::new(root)), None);
        let container = container(id);
        let agent = &node.agent;
        let checked = agent.check_container_on_host(&container, place, spec);
        checked.await.map_err(|e| e.full_message())
    };
    check("c1", "/run/runc", &right).await.unwrap();
    for (id, root, spec, why) in [
        ("c2", "/run/runc", &right, "not given"),
        ("c1", "/run/other", &right, "not given"),
        ("c1", "/run/runc", &mount("/tmp"), "not this volume"),
        ("c1", "/run/runc", &Spec::default(), "was not given"),
    ] {
        let refused = check(id, root, spec).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    drop(maker);
    node.until_released().await;
    node.finish().await;
}
