// SPDX-License-Identifier: Apache-2.0
//! What counts on a node that does not reach its control plane.

use std::{collections::BTreeMap, fs, time::Duration};

use actor_volumes::{api::annotation, error::Kind};

use crate::{
    AT_LAST,
    site::{Site, refusal},
};

type Annotations = BTreeMap<String, String>;

const WITHIN: Duration = Duration::from_secs(30);

async fn whole(site: &Site, actor: &str) -> Annotations {
    site.resume_with(actor, "node-a", WITHIN, true)
        .await
        .unwrap()
}

/// Starts the node again while nobody answers it.
async fn restart_alone(site: &mut Site) {
    site.kill_control().await;
    site.kill_node("node-a").await;
    site.start_node("node-a").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_node_that_is_cut_off_takes_a_signed_grant_with_its_contexts_and_none_that_is_over() {
    let mut site = Site::start(false).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    site.create("agents/a").await;
    let first = whole(&site, "agents/a").await;
    assert!(first[annotation::ATTACHMENTS].contains("publishContext\":{\""));
    let pod = site.pod("node-a", "p1", &first);
    site.container("node-a", &pod).await;
    site.end_pod("node-a", "p1");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let second = whole(&site, "agents/a").await;
    let without = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    restart_alone(&mut site).await;

    let try_it = |id: &'static str, annotations: Annotations| {
        let pod = site.pod("node-a", id, &annotations);
        let site = &site;
        async move { site.try_container("node-a", &pod).await }
    };
    let over = try_it("p2", first.clone()).await.err().unwrap();
    assert_eq!(over.kind(), Kind::FailedPrecondition, "{over}");
    let bare = try_it("p3", without.clone()).await.err().unwrap();
    assert_eq!(bare.kind(), Kind::Unavailable, "{bare}");
    let mut unsigned = second.clone();
    unsigned.remove(annotation::SIGNATURE);
    let refused = refusal(try_it("p4", unsigned).await);
    assert!(refused.contains("unsigned"), "{refused}");
    assert_eq!(site.driver.count("NodePublishVolume"), 1, "that of p1");
    let pod = site.pod("node-a", "p5", &second);
    site.container("node-a", &pod).await;

    // It is back: what it took is what the control plane lists.
    site.start_control().await;
    site.until_state("node-a", "Ready").await;
    site.end_pod("node-a", "p5");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    // A copy of what it took once is over, also when nobody can be asked again.
    restart_alone(&mut site).await;
    for (id, old) in [("p6", &first), ("p7", &second)] {
        let pod = site.pod("node-a", id, old);
        let over = site.try_container("node-a", &pod).await.err().unwrap();
        assert_eq!(over.kind(), Kind::FailedPrecondition, "{over}");
    }
    assert_eq!(site.driver.violations(), [""; 0]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_old_grant_is_of_no_use_where_it_was_valid_once_after_its_actor_moved_away() {
    let mut site = Site::start(false).await;
    for name in ["node-a", "node-b"] {
        site.start_node(name).await;
        site.until_state(name, "Ready").await;
    }
    site.create("agents/a").await;
    // It was never used there.
    let old = whole(&site, "agents/a").await;
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let new = site.resume_with("agents/a", "node-b", WITHIN, true).await;
    let new = new.unwrap();
    let there = site.pod("node-b", "b1", &new);
    site.container("node-b", &there).await;
    let replay = |site: &Site, id: &str, with: &Annotations| site.pod("node-a", id, with);
    // Connected: it is not what the control plane lists for this node.
    let pod = replay(&site, "a1", &old);
    assert!(site.try_container("node-a", &pod).await.is_err());
    let pod = replay(&site, "a2", &new);
    let refused = refusal(site.try_container("node-a", &pod).await);
    assert!(refused.contains("is for node node-b"), "{refused}");
    // Cut off: it was told that the generation is over.
    restart_alone(&mut site).await;
    let pod = replay(&site, "a3", &old);
    let refused = site.try_container("node-a", &pod).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::FailedPrecondition, "{refused}");
    let pod = replay(&site, "a4", &new);
    let refused = site.try_container("node-a", &pod).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::PermissionDenied, "{refused}");
    assert_eq!(site.driver.count("NodePublishVolume"), 1, "that of b1");
    assert_eq!(site.driver.violations(), [""; 0]);
    site.end_pod("node-b", "b1");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_node_that_was_wiped_takes_no_grant_by_itself_until_it_is_confirmed() {
    let mut site = Site::start(false).await;
    // By files alone: what the control plane told would be wiped with the rest.
    let public = site.keys().public().unwrap().remove(0);
    fs::create_dir(site.path("trusted")).unwrap();
    fs::write(site.path("trusted/k.pem"), public.to_pem().unwrap()).unwrap();
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    site.create("agents/a").await;
    let old = whole(&site, "agents/a").await;
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let current = whole(&site, "agents/a").await;
    site.kill_control().await;
    site.kill_node("node-a").await;
    fs::remove_dir_all(site.path("state-node-a")).unwrap();
    site.start_node("node-a").await;
    for (id, grant) in [("p1", &old), ("p2", &current)] {
        let pod = site.pod("node-a", id, grant);
        let refused = site.try_container("node-a", &pod).await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
        assert!(
            refused.to_string().contains("has not confirmed"),
            "{refused}"
        );
    }
    // Reached, it is unconfirmed, and still takes none.
    site.start_control().await;
    site.until_state("node-a", "Unconfirmed").await;
    let pod = site.pod("node-a", "p2", &current);
    assert!(site.try_container("node-a", &pod).await.is_err());
    assert_eq!(site.driver.count("NodeStageVolume"), 0);
    site.reset("node-a", true).await.unwrap();
    site.until_state("node-a", "Ready").await;
    site.container("node-a", &pod).await;
    site.end_pod("node-a", "p2");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_key_that_was_exchanged_reaches_the_nodes_by_the_line_and_nothing_is_restarted() {
    let mut site = Site::start(false).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    site.create("agents/a").await;
    let before = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    let old = site.keys().public().unwrap().remove(0);
    let new = site.keys().rotate(None).unwrap();
    let after = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    assert!(after[annotation::SIGNATURE].starts_with(new.id().as_str()));
    assert_eq!(
        before[annotation::ATTACHMENTS],
        after[annotation::ATTACHMENTS]
    );
    // Both count, until the old one is removed.
    for (id, annotations) in [("p1", &after), ("p2", &before)] {
        let pod = site.pod("node-a", id, annotations);
        site.container("node-a", &pod).await;
        site.end_pod("node-a", id);
    }
    site.keys().remove(old.id()).unwrap();
    let start = std::time::Instant::now();
    loop {
        let pod = site.pod("node-a", "p3", &before);
        let tried = site.try_container("node-a", &pod).await;
        if tried.is_err_and(|e| e.to_string().contains("does not trust")) {
            break;
        }
        assert!(start.elapsed() < AT_LAST, "the old key still counts");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    site.end_pod("node-a", "p3");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    site.stop().await;
}
