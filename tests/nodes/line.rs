// SPDX-License-Identifier: Apache-2.0
//! Who may connect, and what becomes of the line.

use std::{
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    api::annotation,
    control::NodePort as _,
    error::Kind,
    node::Authority as _,
    proto::api::{self, from_node::Message, nodes_client::NodesClient},
    rpc::{error_of, line},
    transport::{self, Endpoint, TlsEndpoint},
};
use tokio_stream::StreamExt;

use crate::{
    AT_LAST,
    authority::Authority,
    site::{HERE, Site, refusal},
};

const WITHIN: Duration = Duration::from_secs(30);

/// Says Hello as `node` with the files of the endpoint, and gives the first answer.
async fn hello(
    endpoint: &Endpoint,
    node: &str,
    protocol: u32,
    instance: &str,
) -> actor_volumes::error::Result<Option<api::ToNode>> {
    let (channel, _) = transport::connect_lasting(endpoint, WITHIN).await?;
    let hello = api::FromNode {
        message: Some(Message::Hello(api::Hello {
            node: node.into(),
            protocol,
            instance: instance.into(),
            ..api::Hello::default()
        })),
    };
    let said = tokio_stream::iter([hello]).chain(tokio_stream::pending());
    let answer = NodesClient::new(channel).connect(said).await;
    let mut answer = answer.map_err(|s| error_of(&s))?.into_inner();
    answer.message().await.map_err(|s| error_of(&s))
}

fn endpoint(site: &Site, name: &str, signed_by: &Authority, trusts: &Authority) -> Endpoint {
    let files = site.path(&format!("files-{name}-{}", fastrand::u32(..)));
    Endpoint::Tls(TlsEndpoint {
        host: "127.0.0.1".into(),
        port: site.port,
        tls: signed_by.files(&files, name, trusts),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_itself_alone_and_only_with_a_certificate_of_the_authority() {
    let site = Site::start(true).await;
    let ours = &site.authority;
    let node_a = endpoint(&site, "node-a", ours, ours);

    let other = refusal(hello(&node_a, "node-b", line::PROTOCOL, "i").await);
    assert!(other.contains("cannot speak for node node-b"), "{other}");
    let wildcard = endpoint(&site, "*.example", ours, ours);
    let refused = refusal(hello(&wildcard, "a.example", line::PROTOCOL, "i").await);
    assert!(refused.contains("cannot speak"), "{refused}");
    let old = refusal(hello(&node_a, "node-a", line::PROTOCOL + 1, "i").await);
    assert!(old.contains("version"), "{old}");

    let stranger = Authority::new();
    let unknown = endpoint(&site, "node-a", &stranger, ours);
    let refused = hello(&unknown, "node-a", line::PROTOCOL, "i").await;
    assert!(refused.is_err(), "a certificate of another authority");
    let fooled = endpoint(&site, "node-a", ours, &stranger);
    let refused = hello(&fooled, "node-a", line::PROTOCOL, "i").await;
    assert!(refused.is_err(), "a control plane of another authority");
    assert!(site.node("node-a").is_none(), "nobody was let in");

    let first = hello(&node_a, "node-a", line::PROTOCOL, "i").await.unwrap();
    let welcome = first.and_then(|m| m.message);
    let ready = |w: &api::Welcome| w.ready;
    assert!(
        matches!(welcome, Some(api::to_node::Message::Welcome(w)) if ready(&w)),
        "the right one is"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_of_the_same_host_comes_by_a_socket_and_by_its_name_alone() {
    let mut site = Site::start(true).await;
    let here = site.listen_here().await;
    let mode = std::fs::metadata(site.path("nodes.sock")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let other = refusal(hello(&here, "node-a", line::PROTOCOL, "i").await);
    assert!(other.contains("set node.name"), "{other}");
    let far = endpoint(&site, HERE, &site.authority, &site.authority);
    let far = refusal(hello(&far, HERE, line::PROTOCOL, "i").await);
    assert!(far.contains("the control plane's own host"), "{far}");

    // Whoever resumes there waits until the node has taken the grant in.
    let nodes = Arc::clone(site.nodes());
    let waits = tokio::spawn(async move { nodes.told(&HERE.parse().unwrap()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waits.is_finished(), "no node is there to be told");
    site.start_here(&here).await;
    let told = tokio::time::timeout(AT_LAST, waits).await;
    told.expect("it is told in time").unwrap().unwrap();
    assert_eq!(site.node(HERE).unwrap().state, "Ready");
    let elsewhere = "node-c".parse().unwrap();
    site.nodes().told(&elsewhere).await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_of_the_same_name_is_refused_while_the_first_is_there() {
    let mut site = Site::start(true).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    let second = endpoint(&site, "node-a", &site.authority, &site.authority);
    let refused = refusal(hello(&second, "node-a", line::PROTOCOL, "another").await);
    assert!(refused.contains("connected already"), "{refused}");
    let instance = site.link("node-a").instance;
    let same = hello(&second, "node-a", line::PROTOCOL, &instance).await;
    assert!(same.is_ok(), "the same machine may connect anew");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_of_the_control_plane_is_used_for_the_next_connection() {
    let site = Site::start(true).await;
    let newer = Authority::new();
    let node = endpoint(&site, "node-a", &newer, &newer);
    assert!(
        hello(&node, "node-a", line::PROTOCOL, "i").await.is_err(),
        "the old authority does not know it"
    );
    newer.files(&site.path("control"), "control.example", &newer);
    let first = hello(&node, "node-a", line::PROTOCOL, "i").await;
    assert!(first.is_ok(), "{first:?}", first = first.err());
    site.stop().await;
}

/// Waits until the node's word allows the grant; gives the token in its context.
async fn until_current(site: &Site, node: &str, pod: &std::collections::BTreeMap<String, String>) {
    let presented = annotation::read(pod).unwrap().unwrap().grant;
    let start = Instant::now();
    loop {
        match site.hosts[node].word.current(&presented) {
            Ok(current) => {
                assert!(presented.volumes[0].publish_context.is_empty());
                assert!(!current.volumes[0].publish_context.is_empty());
                return;
            }
            Err(error) => assert!(start.elapsed() < AT_LAST, "{}", error.full_message()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_reaches_the_node_with_its_contexts_and_again_after_each_restart() {
    let mut site = Site::start(true).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    let node = site.node("node-a").unwrap();
    assert_eq!(node.drivers[0].node_id, "node-a", "as its driver tells");
    site.create("agents/a").await;
    let pod = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    until_current(&site, "node-a", &pod).await;

    // The control plane is away: the last word stands.
    site.kill_control().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    until_current(&site, "node-a", &pod).await;
    // The node is started again meanwhile: it knows nothing, and says whom it asks.
    site.kill_node("node-a").await;
    site.start_node("node-a").await;
    let presented = annotation::read(&pod).unwrap().unwrap().grant;
    let error = site.hosts["node-a"].word.current(&presented).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error
            .full_message()
            .contains("the control plane of the test")
    );
    // It is back, and says the same.
    site.start_control().await;
    until_current(&site, "node-a", &pod).await;
    // What is suspended is over there too.
    site.suspend("agents/a", WITHIN).await.unwrap();
    let start = Instant::now();
    while site.hosts["node-a"].word.current(&presented).is_ok() {
        assert!(start.elapsed() < AT_LAST, "the word was not taken back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(site.driver.violations().is_empty());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_is_noticed_and_answered_for_at_once() {
    let mut site = Site::start(true).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    site.create("agents/a").await;
    let pod = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    until_current(&site, "node-a", &pod).await;
    site.cut("node-a", true);
    site.until_state("node-a", "Away").await;
    let waits = refusal(site.suspend("agents/a", Duration::from_secs(3)).await);
    assert!(
        waits.contains("node node-a is not connected since"),
        "{waits}"
    );
    assert!(waits.contains("node fence node-a"), "{waits}");
    let shown = site.message("agents/a").await;
    assert!(shown.contains("node fence node-a"), "{shown}");
    assert_eq!(site.driver.count("ControllerUnpublishVolume"), 0);
    site.create("agents/b").await;
    let refused = site.resume("agents/b", "node-a", WITHIN).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.full_message().contains("is not connected since"));
    let never = site.resume("agents/b", "node-x", WITHIN).await.unwrap_err();
    assert!(never.full_message().contains("never been connected"));
    // It is back: what waited goes on by itself.
    site.cut("node-a", false);
    site.until_state("node-a", "Ready").await;
    site.suspend("agents/a", AT_LAST).await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_wiped_is_trusted_only_when_nothing_of_it_is_recorded_or_somebody_says_so()
{
    let mut site = Site::start(true).await;
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;
    let wipe = |site: &Site| std::fs::remove_dir_all(site.path("state-node-a")).unwrap();

    // Nothing is recorded there.
    site.kill_node("node-a").await;
    site.until_state("node-a", "Away").await;
    wipe(&site);
    site.start_node("node-a").await;
    site.until_state("node-a", "Ready").await;

    // Something is.
    site.create("agents/a").await;
    let pod = site.resume("agents/a", "node-a", WITHIN).await.unwrap();
    until_current(&site, "node-a", &pod).await;
    site.kill_node("node-a").await;
    site.until_state("node-a", "Away").await;
    wipe(&site);
    site.start_node("node-a").await;
    site.until_state("node-a", "Unconfirmed").await;
    let presented = annotation::read(&pod).unwrap().unwrap().grant;
    assert!(site.hosts["node-a"].word.current(&presented).is_err());
    let waits = refusal(site.suspend("agents/a", Duration::from_secs(3)).await);
    assert!(waits.contains("node reset node-a"), "{waits}");
    assert_eq!(site.driver.count("ControllerUnpublishVolume"), 0);
    let unsure = refusal(site.reset("node-a", false).await);
    assert!(unsure.contains("make sure"), "{unsure}");
    site.reset("node-a", true).await.unwrap();
    site.suspend("agents/a", AT_LAST).await.unwrap();
    let again = refusal(site.reset("node-a", true).await);
    assert!(again.contains("needs no reset"), "{again}");
    site.stop().await;
}
