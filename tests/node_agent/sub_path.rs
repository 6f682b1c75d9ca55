// SPDX-License-Identifier: Apache-2.0
//! Directories of a volume, mounted instead of the whole.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use actor_volumes::{
    delivery::{self, Needs, Spec, SpecMount},
    error::Kind,
    host::mount::{is_mount_point, unmount},
    model::{Generation, SandboxView},
};

use crate::node::{Elsewhere, Node, Over, Setup};

/// `/one` for every container, `/two/deep` for the side car.
fn setup() -> Setup {
    Setup {
        sub_paths: vec![(None, "one"), (Some("side"), "two/deep")],
        ..Setup::default()
    }
}

/// Where each path of the container comes from.
fn sources(needs: &Needs) -> BTreeMap<String, PathBuf> {
    let mounts = needs.mounts.iter();
    mounts
        .map(|m| (m.destination.clone(), m.source.clone()))
        .collect()
}

async fn given(node: &Node, sandbox: &SandboxView, id: &str) -> BTreeMap<String, PathBuf> {
    sources(&node.needs(sandbox, id).await)
}

async fn refusal(node: &Node, sandbox: &SandboxView, words: &str) {
    node.until(words, async || {
        let error = node.create(sandbox, "refused").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        error.full_message().contains(words)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn each_container_gets_its_directories_and_their_data_is_there_again() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let agent = given(&node, &sandbox, "c1").await;
    assert_eq!(agent.keys().collect::<Vec<_>>(), ["/my-data", "/one"]);
    let side = sources(&node.create_named(&sandbox, "c2", "side").await.unwrap());
    assert_eq!(
        side.keys().collect::<Vec<_>>(),
        ["/my-data", "/one", "/two/deep"]
    );
    let (whole, one, deep) = (&side["/my-data"], &side["/one"], &side["/two/deep"]);
    assert_eq!(agent["/one"], *one);
    for path in [one, deep] {
        assert!(is_mount_point(path).unwrap());
        assert!(!path.starts_with(whole));
    }
    fs::write(one.join("f"), "1").unwrap();
    fs::write(deep.join("f"), "2").unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(read(whole.join("one/f")), "1");
    assert_eq!(read(whole.join("two/deep/f")), "2");
    node.agent.container_gone("s1", "c2");
    node.end("s1", "c1");
    node.until_released().await;

    let next = node.sandbox("s2", 2);
    let again = given(&node, &next, "c3").await;
    assert_eq!(read(again["/one"].join("f")), "1");
    assert_eq!(fs::read_dir(&again["/one"]).unwrap().count(), 1);
    node.end("s2", "c3");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn nothing_is_unpublished_while_a_process_has_a_directory_of_it() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let one = given(&node, &sandbox, "c1").await["/one"].clone();
    let inside = node.dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let container = Elsewhere::start("mount --bind \"$1\" \"$2\";", &[&one, &inside]);
    // As an actor may: the directory has another name by now.
    let volume = given(&node, &sandbox, "c1").await["/my-data"].clone();
    fs::rename(volume.join("one"), volume.join("other")).unwrap();
    node.end("s1", "c1");
    node.agent.revoke(&node.key(), Generation(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    assert!(is_mount_point(&one).unwrap());
    let held = node.agent.held(&node.key()).await.unwrap();
    assert!(held.contains(&container.0.id().to_string()), "{held}");
    drop(container);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_link_of_the_actor_is_refused_by_name_until_it_is_gone() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let volume = node.dir.path().join("backend/volumes");
    let volume = fs::read_dir(volume)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let data = |name: &str| volume.join(name);
    symlink(&outside, data("two")).unwrap();
    let sandbox = node.sandbox("s1", 1);
    refusal(&node, &sandbox, "subPath two/deep of volume vol1: cannot be mounted: \"two\" is a symbolic link, which is never followed").await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fs::remove_file(data("two")).unwrap();
    fs::create_dir(data("two")).unwrap();
    fs::write(data("two/deep"), "x").unwrap();
    refusal(&node, &sandbox, "\"deep\" is no directory").await;
    fs::remove_file(data("two/deep")).unwrap();
    let given = given(&node, &sandbox, "c1").await;
    assert!(is_mount_point(&given["/one"]).unwrap());
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_restarted_agent_knows_its_directories_and_takes_them_away() {
    let mut node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let before = given(&node, &sandbox, "c1").await;
    node.restart().await;
    assert_eq!(given(&node, &sandbox, "c2").await, before);
    assert_eq!(node.driver.count("NodePublishVolume"), 1);
    node.agent.container_gone("s1", "c1");
    node.restart().await;
    node.end("s1", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_directory_that_is_lost_or_removed_is_mounted_anew_and_a_renamed_one_is_kept() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let first = given(&node, &sandbox, "c1").await;
    let (whole, one) = (&first["/my-data"], &first["/one"]);
    // Links and names that change later change nothing.
    fs::write(one.join("f"), "x").unwrap();
    fs::rename(whole.join("one"), whole.join("away")).unwrap();
    symlink("/", whole.join("one")).unwrap();
    assert_eq!(given(&node, &sandbox, "c2").await, first);
    assert!(one.join("f").exists());
    assert_eq!(node.driver.count("NodePublishVolume"), 1);
    fs::remove_file(whole.join("one")).unwrap();
    fs::rename(whole.join("away"), whole.join("one")).unwrap();
    for container in ["c1", "c2"] {
        node.agent.container_gone("s1", container);
    }

    // Somebody unmounts it.
    unmount(one).unwrap();
    assert_eq!(given(&node, &sandbox, "c3").await, first);
    assert!(one.join("f").exists());
    assert_eq!(node.driver.count("NodePublishVolume"), 2);
    node.agent.container_gone("s1", "c3");

    // Somebody removes it.
    fs::remove_file(whole.join("one/f")).unwrap();
    fs::remove_dir(whole.join("one")).unwrap();
    assert_eq!(given(&node, &sandbox, "c4").await, first);
    fs::write(one.join("g"), "x").unwrap();
    assert!(whole.join("one/g").exists());
    assert_eq!(node.driver.count("NodePublishVolume"), 3);
    node.end("s1", "c4");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_release_waits_for_a_helper_that_is_away() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let one = given(&node, &sandbox, "c1").await["/one"].clone();
    node.helper.lock().unwrap().kill();
    node.end("s1", "c1");
    node.until("it is said", async || {
        let held = node.agent.held(&node.key()).await;
        held.is_some_and(|h| h.contains("is `actor-volumes helper` running?"))
    })
    .await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    assert!(is_mount_point(&one).unwrap());
    node.helper.lock().unwrap().restart();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn the_guard_takes_the_directory_as_it_is_shown_and_nothing_else() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    let spec = |needs: &Needs| Spec {
        mounts: needs
            .mounts
            .iter()
            .map(|need| SpecMount {
                destination: need.destination.clone(),
                source: need.source.clone(),
                kind: "bind".into(),
                options: delivery::options(need),
            })
            .collect(),
        devices: Vec::new(),
    };
    let container = Node::view(&sandbox, "c1", "agent");
    let check = async |needs: &Needs| {
        let spec = spec(needs);
        let checked = node.agent.check_container(&sandbox, &container, &spec);
        checked.await.map_err(|e| e.full_message())
    };
    check(&needs).await.unwrap();
    let one = needs.mounts.iter().position(|m| m.destination == "/one");
    let whole = needs
        .mounts
        .iter()
        .position(|m| m.destination == "/my-data");
    let (one, whole) = (one.unwrap(), whole.unwrap());
    let below = needs.mounts[whole].source.join("one");
    for source in [below, needs.mounts[whole].source.clone()] {
        let mut other = needs.clone();
        other.mounts[one].source = source;
        let why = check(&other).await.unwrap_err();
        assert!(why.contains("not this volume"), "{why}");
    }
    let at = needs.mounts[one].source.clone();
    unmount(&at).unwrap();
    let why = check(&needs).await.unwrap_err();
    assert!(why.contains("its directory one is not mounted"), "{why}");
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_new_directory_is_of_the_group_and_a_read_only_volume_gets_none() {
    let mut with_group = setup();
    with_group.mount_group = "4242".into();
    let node = Node::over(Over::Bind, with_group, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let given = given(&node, &sandbox, "c1").await;
    let whole = &given["/my-data"];
    for path in ["one", "two", "two/deep"] {
        let found = fs::metadata(whole.join(path)).unwrap();
        assert_eq!(
            (found.gid(), found.permissions().mode() & 0o2070),
            (4242, 0o2070)
        );
    }
    node.end("s1", "c1");
    node.finish().await;

    let mut read_only = setup();
    read_only.read_only = true;
    let node = Node::over(Over::Bind, read_only, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    refusal(&node, &sandbox, "\"one\" is not there").await;
    node.end("s1", "refused");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn directories_of_a_dead_file_system_are_made_anew_with_it() {
    use testkit::csi::FuseOrder;
    let node = Node::over(Over::Fuse, setup(), |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let first = given(&node, &sandbox, "c1").await;
    fs::write(first["/one"].join("f"), "kept").unwrap();
    node.runs("s1", "c1", false);
    let id = &node.volume.volume_id;
    node.driver.fuse(id, FuseOrder::Kill).unwrap();
    let is_dead = |path: &Path| fs::metadata(path).is_err();
    node.until("it is dead", async || is_dead(&first["/one"]))
        .await;
    let again = given(&node, &sandbox, "c2").await;
    let kept = fs::read_to_string(again["/one"].join("f")).unwrap();
    assert_eq!(kept, "kept");
    node.end("s1", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_helper_that_dies_all_the_time_costs_time_and_nothing_else() {
    let node = Node::over(Over::Bind, setup(), |_| ()).await;
    let (helper, ended) = (Arc::clone(&node.helper), Arc::new(AtomicBool::new(false)));
    let killing = thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            let mut deaths = 0;
            while !ended.load(Ordering::Relaxed) {
                // Some get far, others not.
                thread::sleep(Duration::from_millis(10 * (deaths % 30)));
                helper.lock().unwrap().restart();
                deaths += 1;
            }
            deaths
        }
    });
    for round in 1..=8 {
        let name = format!("s{round}");
        let sandbox = node.sandbox(&name, round);
        let given = given(&node, &sandbox, "c").await;
        let file = given["/one"].join("f");
        let before = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(before.len(), usize::try_from(round).unwrap() - 1);
        fs::write(&file, before + "x").unwrap();
        node.end(&name, "c");
        node.until_released().await;
    }
    ended.store(true, Ordering::Relaxed);
    let deaths = killing.join().unwrap();
    println!("{deaths} deaths");
    assert!(deaths > 8);
    node.finish().await;
}
