// SPDX-License-Identifier: Apache-2.0
//! Three nodes over one storage: actors that move with their data, a node that is
//! cut off, and its return.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use actor_volumes::error::Kind;

use crate::{
    AT_LAST,
    site::{NAMES, Site, refusal},
};

const WITHIN: Duration = Duration::from_secs(30);

/// A container that runs on: a mount namespace with a bind of its own.
struct Container(Child);

impl Container {
    fn start(source: &Path, site: &Site) -> Self {
        let at = site.path("in-container");
        fs::create_dir_all(&at).unwrap();
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$1\" \"$2\" && echo ready && exec sleep 1000")
            .arg("sh")
            .args([source, &at])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let out = child.stdout.as_mut().unwrap();
        out.read_exact(&mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(nodes: usize) -> Site {
    let mut site = Site::start(false).await;
    for name in NAMES.into_iter().take(nodes) {
        site.start_node(name).await;
        site.until_state(name, "Ready").await;
    }
    site.create("agents/a").await;
    site
}

fn volume(site: &Site) -> String {
    site.driver.volumes()[0].clone()
}

/// What a node has on disk of volumes.
fn records(site: &Site, node: &str) -> Vec<String> {
    let entries = fs::read_dir(site.path(&format!("state-{node}/records"))).unwrap();
    let name = |e: fs::DirEntry| e.file_name().into_string().unwrap();
    entries.map(|e| name(e.unwrap())).collect()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < AT_LAST, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_actor_moves_over_three_nodes_with_its_data() {
    let site = start(3).await;
    for (n, name) in NAMES.into_iter().enumerate() {
        let pod = site.resume("agents/a", name, WITHIN).await.unwrap();
        let id = format!("s{n}");
        let pod = site.pod(name, &id, &pod);
        let mount = site.container(name, &pod).await;
        assert_eq!(site.driver.attached(&volume(&site)), [name]);
        let written = fs::read_to_string(mount.join("log")).unwrap_or_default();
        assert_eq!(written.lines().count(), n, "what was written before");
        fs::write(mount.join("log"), format!("{written}{name}\n")).unwrap();
        site.end_pod(name, &id);
        site.suspend("agents/a", AT_LAST).await.unwrap();
    }
    let violations = site.driver.violations();
    assert!(violations.is_empty(), "{violations:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_node_goes_on_while_its_control_plane_is_down_and_this_catches_up() {
    let mut site = start(1).await;
    let with = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    let first = site.pod("node-a", "s1", &with);
    site.container("node-a", &first).await;
    site.kill_control().await;
    // A pod ends and its volume is released; another one is made by the same word.
    site.end_pod("node-a", "s1");
    let second = site.pod("node-a", "s2", &with);
    let mount = site.container("node-a", &second).await;
    fs::write(mount.join("file"), "while it was down").unwrap();
    site.end_pod("node-a", "s2");
    site.start_control().await;
    site.until_state("node-a", "Ready").await;
    site.suspend("agents/a", AT_LAST).await.unwrap();
    assert!(site.driver.attached(&volume(&site)).is_empty());
    assert!(site.driver.violations().is_empty());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn what_a_cut_off_node_holds_goes_on_only_after_a_fence_and_the_node_comes_back_to_nothing() {
    let mut site = start(2).await;
    let old = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    let pod = site.pod("node-a", "s1", &old);
    let mount = site.container("node-a", &pod).await;
    fs::write(mount.join("file"), "of node-a").unwrap();

    let refused = refusal(site.fence("node-a", true).await);
    assert!(refused.contains("is connected"), "{refused}");
    site.cut("node-a", true);
    site.until_state("node-a", "Away").await;

    // The actor is wanted on the other node: it waits, and says why.
    let waits = refusal(site.suspend("agents/a", Duration::from_secs(2)).await);
    assert!(waits.contains("node-a is not connected"), "{waits}");
    let waits = refusal(
        site.resume("agents/a", "node-b", Duration::from_secs(2))
            .await,
    );
    assert!(waits.contains("node fence node-a"), "{waits}");
    assert_eq!(site.driver.attached(&volume(&site)), ["node-a"]);
    let refused = refusal(site.fence("node-a", false).await);
    assert!(refused.contains("powered off"), "{refused}");

    // It is killed, and an operator says so.
    site.end_pod("node-a", "s1");
    site.kill_node("node-a").await;
    site.driver.fence("node-a");
    site.fence("node-a", true).await.unwrap();
    site.until_state("node-a", "Fenced").await;
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let refused = site.resume("agents/a", "node-a", WITHIN).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    let new = site.resume("agents/a", "node-b", WITHIN).await.unwrap();
    let pod = site.pod("node-b", "s2", &new);
    let mount = site.container("node-b", &pod).await;
    assert_eq!(fs::read_to_string(mount.join("file")).unwrap(), "of node-a");
    assert_eq!(site.driver.attached(&volume(&site)), ["node-b"]);

    // A restart of the control plane forgets no fence.
    site.kill_control().await;
    site.start_control().await;
    site.until_state("node-a", "Fenced").await;

    // It comes back: what it held is over, and the old generation is refused.
    site.cut("node-a", false);
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    let late = site.pod("node-a", "s3", &old);
    let refused = refusal(site.try_container("node-a", &late).await);
    assert!(refused.contains("is over"), "{refused}");
    let held = site.hosts["node-a"].agent.holdings().await;
    assert!(held.is_empty(), "{held:?}");
    assert_eq!(site.driver.attached(&volume(&site)), ["node-b"]);

    // And it can be used again.
    site.end_pod("node-b", "s2");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let again = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    let pod = site.pod("node-a", "s4", &again);
    site.container("node-a", &pod).await;
    site.end_pod("node-a", "s4");
    site.suspend("agents/a", AT_LAST).await.unwrap();

    // What is deleted while it is away, fenced or not, it forgets when it is back.
    assert_eq!(records(&site, "node-a").len(), 1);
    site.cut("node-a", true);
    site.until_state("node-a", "Away").await;
    site.delete("agents/a", AT_LAST).await.unwrap();
    assert!(site.driver.volumes().is_empty());
    until("node-b forgets it", || records(&site, "node-b").is_empty()).await;
    assert_eq!(records(&site, "node-a").len(), 1);
    site.cut("node-a", false);
    until("its record goes", || records(&site, "node-a").is_empty()).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_container_that_outlived_the_fence_is_named_and_nothing_is_unpublished_under_it() {
    let site = start(2).await;
    let old = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    let pod = site.pod("node-a", "s1", &old);
    let mount = site.container("node-a", &pod).await;
    let container = Container::start(&mount, &site);
    site.cut("node-a", true);
    site.until_state("node-a", "Away").await;
    // The operator errs: the node is on, and its container lives.
    site.driver.fence("node-a");
    site.fence("node-a", true).await.unwrap();
    let unpublished = || {
        let calls = site.driver.calls();
        let here =
            |c: &&testkit::csi::Call| c.method == "NodeUnpublishVolume" && c.node == "node-a";
        calls.iter().filter(here).count()
    };
    site.cut("node-a", false);
    site.until_node("node-a", |n| !n.possible_double_writers.is_empty())
        .await;
    let node = site.node("node-a").unwrap();
    assert_eq!(node.state, "Returning");
    assert!(node.possible_double_writers[0].held_by.contains("pod-s1"));
    let shown = site.volume("agents/a").await;
    assert!(shown.possible_double_writers[0].contains("on node node-a"));
    assert_eq!(unpublished(), 0, "a process of the scope lives");
    let refused = refusal(site.try_container("node-a", &pod).await);
    assert!(refused.contains("was fenced"), "{refused}");
    // It ends, and the node is taken back.
    drop(container);
    site.end_pod("node-a", "s1");
    site.until_state("node-a", "Ready").await;
    until("it is unpublished", || unpublished() > 0).await;
    let node = site.node("node-a").unwrap();
    assert!(node.possible_double_writers.is_empty());
    // The actor is still resumed there by the records: its grant is over.
    let refused = refusal(site.resume("agents/a", "node-a", WITHIN).await);
    assert!(refused.contains("suspend the actor first"), "{refused}");
    site.suspend("agents/a", AT_LAST).await.unwrap();
    site.stop().await;
}
