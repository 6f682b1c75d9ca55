// SPDX-License-Identifier: Apache-2.0
//! The power is cut while an actor writes, while its volume is published and
//! while it is released; and a reboot that was asked for.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{Test, machine::Disks, node::Node};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_write_that_was_synced_outlives_a_power_cut_and_others_are_lost",
        a_write_that_was_synced_outlives_a_power_cut_and_others_are_lost,
    ),
    (
        "a_power_cut_while_publishing_leaves_what_the_next_boot_finishes",
        a_power_cut_while_publishing_leaves_what_the_next_boot_finishes,
    ),
    (
        "a_power_cut_while_releasing_leaves_what_the_next_boot_finishes",
        a_power_cut_while_releasing_leaves_what_the_next_boot_finishes,
    ),
    (
        "after_a_reboot_the_same_grant_gives_the_volume_to_a_new_pod",
        after_a_reboot_the_same_grant_gives_the_volume_to_a_new_pod,
    ),
];

/// A container that does nothing.
pub(crate) const IDLE: &str = "exec sleep 2147483647";

/// Leaves something in the volume, synced.
pub(crate) const KEEP: &str = "echo kept | dd of=/my-data/f conv=fsync 2> /dev/null";

/// Numbered records, each with its checksum and synced before its number is
/// told; beside them a file that is never synced.
const WRITER: &str = "cd /my-data; n=0; while :; do n=$((n + 1)); \
    echo \"$n $(printf 'record %s' $n | sha256sum | cut -c 1-64)\" | \
    dd of=log oflag=append conv=notrunc,fsync 2> /dev/null && echo \"synced $n\"; \
    echo $n >> loose; done";

/// How many of the first records are whole and right.
fn right(log: &str) -> usize {
    let is_right = |(at, line): (usize, &str)| {
        let number = at + 1;
        line == format!(
            "{number} {}",
            hex::encode(Sha256::digest(format!("record {number}")))
        )
    };
    log.lines()
        .enumerate()
        .map(is_right)
        .take_while(|r| *r)
        .count()
}

/// The highest number that the writer has told.
fn told(node: &Node) -> usize {
    let said = node.machine.said();
    let numbers = said.iter().filter_map(|l| l.strip_prefix("synced "));
    numbers.filter_map(|n| n.parse().ok()).max().unwrap_or(0)
}

fn a_write_that_was_synced_outlives_a_power_cut_and_others_are_lost(disks: &Disks) {
    let mut node = Node::up(disks);
    node.create("a");
    node.resume("a");
    node.pod("a", "p1", WRITER);
    let enough = 12 + usize::from(fastrand::u8(..16));
    node.until("the actor writes", |node| told(node) >= enough);
    let synced = told(&node);
    node.machine.cut();

    let mut node = Node::up(disks);
    node.resume("a");
    let agent = node.pod("a", "p2", IDLE);
    let log = node.exec(&agent, "cat /my-data/log");
    assert!(right(&log) >= synced, "{synced} were synced:\n{log}");
    let loose = node.exec(&agent, "cat /my-data/loose 2> /dev/null || true");
    let kept = loose.lines().count();
    assert!(kept < synced, "nothing was lost that was never synced");
    println!(
        "    {synced} records synced, {} found; {kept} found of what was not synced",
        right(&log)
    );
    node.finish("a");
}

/// A moment of no one's choice.
const ANY: &str = "";

/// An actor with something in its volume, suspended.
fn with_data(disks: &Disks) -> Node {
    let mut node = Node::up(disks);
    node.create("a");
    node.resume("a");
    let agent = node.pod("a", "first", IDLE);
    node.exec(&agent, KEEP);
    node.remove("first");
    node.suspend("a");
    node
}

/// Cuts the power once the daemon has died at its crash point, or at any moment.
fn cut(mut node: Node, crash: &str) {
    if crash == ANY {
        std::thread::sleep(Duration::from_millis(fastrand::u64(..1500)));
    } else {
        node.until("the daemon dies at its crash point", |node| !node.serves());
    }
    node.machine.cut();
}

/// A pod gets the volume with its data, by the annotations that are there.
fn is_there(node: &mut Node, pod: &str) {
    let agent = node.pod("a", pod, IDLE);
    assert_eq!(node.exec(&agent, "cat /my-data/f"), "kept");
}

fn a_power_cut_while_publishing_leaves_what_the_next_boot_finishes(disks: &Disks) {
    let mut node = with_data(disks);
    for crash in [
        "stage-answered",
        "publish-intended",
        "publish-answered",
        ANY,
    ] {
        node.resume("a");
        if crash != ANY {
            node.arm(crash);
        }
        node.machine
            .tell(&json!({ "do": "pod", "name": "cut", "annotations": "/d/a.json" }));
        if crash != ANY {
            let _ = node.machine.hear();
        }
        cut(node, crash);
        node = Node::up(disks);
        is_there(&mut node, &format!("after-{crash}"));
        node.remove_all_pods();
        node.suspend("a");
        assert_eq!(node.mounts(), [""; 0], "{crash}");
    }
    node.finish("a");
}

fn a_power_cut_while_releasing_leaves_what_the_next_boot_finishes(disks: &Disks) {
    let mut node = with_data(disks);
    for crash in [
        "unpublish-intended",
        "unpublish-answered",
        "unstage-answered",
        ANY,
    ] {
        node.resume("a");
        is_there(&mut node, "cut");
        if crash != ANY {
            node.arm(crash);
        }
        node.machine.tell(&json!({ "do": "remove", "pod": "cut" }));
        if crash != ANY {
            let _ = node.machine.hear();
        }
        cut(node, crash);
        node = Node::up(disks);
        node.suspend("a");
        assert_eq!(node.mounts(), [""; 0], "{crash}");
        node.remove_all_pods();
    }
    node.resume("a");
    is_there(&mut node, "last");
    node.finish("a");
}

fn after_a_reboot_the_same_grant_gives_the_volume_to_a_new_pod(disks: &Disks) {
    const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";
    let mut node = with_data(disks);
    node.resume("a");
    is_there(&mut node, "before");
    let boot = node.machine.sh(BOOT);
    node.machine.shut_down();

    let mut node = Node::up(disks);
    assert_ne!(node.machine.sh(BOOT), boot);
    // Nothing is mounted yet, whatever the records of the old boot say.
    assert_eq!(node.mounts(), [""; 0]);
    is_there(&mut node, "after");
    let volume = node.volume("a");
    let held = volume["attachments"].to_string();
    assert!(held.contains("node-a"), "{volume}");
    node.finish("a");
}
