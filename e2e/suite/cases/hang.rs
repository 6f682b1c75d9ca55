// SPDX-License-Identifier: Apache-2.0
//! What hangs holds up nobody else, is named with since when, and does not keep
//! our daemon from its end.

use std::{process::Stdio, thread, time::Duration};

use rustix::process::Signal;
use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{SHARED, create, doctor, prepare, qualified};
use crate::{
    Case,
    daemon::{Daemon, until},
    driver::{self, Driver},
    node::{Node, SOON, is_retryable},
    setup::actor_volumes,
};

/// Longer than it takes until what hangs is told.
const TOLD: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Testkit, run);
    vec![
        case(
            "a_publish_that_is_never_answered_holds_up_nobody_else",
            a_publish_that_is_never_answered_holds_up_nobody_else,
        ),
        case(
            "an_unpublish_that_is_never_answered_holds_up_nobody_else",
            |node| a_release_that_hangs(node, "NodeUnpublishVolume", driver::set_hang),
        ),
        case(
            "an_unmount_that_does_not_end_holds_up_nobody_else",
            |node| a_release_that_hangs(node, "NodeUnstageVolume", driver::set_hang_midway),
        ),
        Case::new(
            "a_file_system_that_hangs_holds_up_nobody_else",
            Driver::TestkitFuse,
            a_file_system_that_hangs_holds_up_nobody_else,
        ),
        case(
            "a_client_that_was_stopped_does_not_keep_our_daemon_from_its_end",
            a_client_that_was_stopped_does_not_keep_our_daemon_from_its_end,
        ),
    ]
}

/// The volume that will hang, and two that will not: the annotations of `a`; `b` runs.
fn three(node: &mut Node) -> (String, Annotations, Pod, String) {
    prepare(node);
    create(node, "a", SHARED);
    let volumes = node.must(&["volume", "ls", "-o", "json"]);
    let volumes: serde_json::Value = serde_json::from_str(&volumes).expect("it is JSON");
    let id = volumes[0]["volumeId"].as_str();
    let volume = id
        .unwrap_or_else(|| panic!("no volume id in {volumes}"))
        .to_owned();
    create(node, "b", SHARED);
    create(node, "c", SHARED);
    let annotations = node.resume("a");
    let others = node.resume("b");
    let (pod, agent) = node.run_agent(&others);
    (volume, annotations, pod, agent)
}

/// The doctor names the volume: what is told of it, once it is.
fn told(node: &Node, volume: &str) -> String {
    let told = until("the doctor names what hangs", TOLD, || {
        let (findings, _) = doctor::findings(node);
        let texts = findings.iter().filter(|f| f["check"] == "volumes");
        let mut texts = texts.filter_map(|f| f["message"].as_str());
        let found = texts.find(|t| t.contains(volume) && t.contains(" since 2"));
        found.map(str::to_owned)
    });
    let (findings, _) = doctor::findings(node);
    let named = findings.iter().filter(|f| f["check"] == "volumes");
    assert_eq!(named.count(), 1, "only what hangs is named: {findings:?}");
    told
}

/// Our daemon ends by SIGTERM, and the next one takes its place.
fn ends_and_starts(node: &mut Node) {
    let next = node.one_more_serve("serve");
    node.replace_serve(next, |serve| {
        let status = serve.expect("it runs").terminate(SOON);
        assert!(status.is_some_and(|s| s.success()), "{status:?}");
    });
}

fn a_publish_that_is_never_answered_holds_up_nobody_else(node: &mut Node) {
    let (volume, annotations, other_pod, other) = three(node);
    node.driver_hang("NodePublishVolume");
    let calls = node.driver_calls("NodePublishVolume");
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("agent");
    for _ in 0..5 {
        let refusal = node.cri.create_container(&pod, &spec);
        let refusal = refusal.expect_err("its volume is not published");
        assert!(is_retryable(&refusal), "{refusal}");
    }
    let text = told(node, &volume);
    assert!(text.contains("publish for pod"), "{text}");
    assert_eq!(
        node.driver_calls("NodePublishVolume") - calls,
        1,
        "one call, however often it is asked for"
    );
    node.sh(&other, "echo goes-on > /my-data/f");
    node.remove_pod(&other_pod);
    node.suspend("b");
    ends_and_starts(node);

    node.driver_well();
    let agent = super::runs_in_the_end(node, &pod, &spec);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn a_release_that_hangs(node: &mut Node, method: &str, hang: fn(&std::path::Path, &str)) {
    let (volume, annotations, other_pod, other) = three(node);
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo kept > /my-data/f");
    let calls = node.driver_calls(method);
    hang(&node.dir, method);
    node.remove_pod(&pod);
    let text = told(node, &volume);
    assert!(text.contains("is not done"), "{text}");
    assert_eq!(node.driver_calls(method) - calls, 1, "one call at a time");
    let name = qualified("a");
    let suspended = node.av(&["actor", "suspend", &name, "--wait", "--timeout", "1s"]);
    assert!(suspended.is_err(), "its volume is not released");
    node.sh(&other, "echo goes-on > /my-data/f");
    others_come_up(node);
    ends_and_starts(node);

    node.driver_well();
    node.suspend("a");
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
    node.remove_pod(&other_pod);
}

/// A new pod with a volume runs meanwhile.
fn others_come_up(node: &mut Node) {
    let annotations = node.resume("c");
    let (_, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/f");
}

fn a_file_system_that_hangs_holds_up_nobody_else(node: &mut Node) {
    let (volume, annotations, other_pod, other) = three(node);
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo kept > /my-data/f");
    freeze(node, &volume, true);
    let again = ContainerSpec::idle("agent").attempt(1);
    let refusal = until("a further container is refused", SOON, || {
        match node.cri.create_container(&pod, &again) {
            Ok(id) => {
                node.cri.remove_container(&id).expect("it is removed");
                None
            }
            Err(refusal) => Some(refusal),
        }
    });
    assert!(is_retryable(&refusal), "{refusal}");
    let text = told(node, &volume);
    assert!(text.contains("does not answer"), "{text}");
    node.sh(&other, "echo goes-on > /my-data/f");
    others_come_up(node);
    ends_and_starts(node);

    freeze(node, &volume, false);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.run(&pod, &again.attempt(2));
    node.remove_pod(&pod);
    node.remove_pod(&other_pod);
}

fn freeze(node: &Node, volume: &str, frozen: bool) {
    driver::set_frozen(&node.dir, volume, frozen);
    // The driver reads its orders at the next call: the doctor makes one.
    doctor::findings(node);
}

fn a_client_that_was_stopped_does_not_keep_our_daemon_from_its_end(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, _) = node.run_agent(&annotations);
    let mut command = actor_volumes();
    let name = qualified("a");
    command
        .args(["actor", "suspend", &name, "--wait"])
        .env(
            "ACTOR_VOLUMES_SOCKET",
            node.dir.join("run/actor-volumes.sock"),
        )
        .stdin(Stdio::null());
    let mut client = Daemon::start("client", &mut command, &node.log("client"));
    until("the verb is under way", SOON, || {
        let shown = node.must(&["actor", "ls", "-o", "json"]);
        shown.contains("Suspending").then_some(())
    });
    thread::sleep(Duration::from_millis(200));
    assert!(client.is_running(), "it waits for the pod's end");
    client.signal(Signal::STOP);
    ends_and_starts(node);
    drop(client);
    node.remove_pod(&pod);
}
