// SPDX-License-Identifier: Apache-2.0
//! Records that were torn, a disk for them that is full or read-only, and one
//! that was wiped.

use crate::{
    RUN, Test,
    machine::Disks,
    node::Node,
    writes::{IDLE, KEEP},
};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_torn_record_counts_as_held_and_nothing_is_released",
        a_torn_record_counts_as_held_and_nothing_is_released,
    ),
    (
        "a_full_disk_refuses_containers_and_loses_nothing",
        a_full_disk_refuses_containers_and_loses_nothing,
    ),
    (
        "a_read_only_disk_refuses_containers_and_loses_nothing",
        a_read_only_disk_refuses_containers_and_loses_nothing,
    ),
    (
        "wiped_records_disturb_no_running_actor_and_its_volume_counts_as_held",
        wiped_records_disturb_no_running_actor_and_its_volume_counts_as_held,
    ),
];

/// An actor that runs, with something in its volume: its container.
fn running(node: &mut Node) -> String {
    node.create("a");
    node.resume("a");
    let agent = node.pod("a", "p1", IDLE);
    node.exec(&agent, KEEP);
    agent
}

fn a_torn_record_counts_as_held_and_nothing_is_released(disks: &Disks) {
    let mut node = Node::up(disks);
    running(&mut node);
    node.machine
        .sh("mkdir /d/kept && cp /s/av/records/*.json /d/kept/ && sync");
    for tear in ["truncate -s 40", "truncate -s 0"] {
        node.machine.cut();
        node = Node::boot(disks);
        node.machine.sh(&format!("{tear} /s/av/records/*.json"));
        node.serve();
        let name = node.machine.sh("basename /s/av/records/*.json .json");
        let log = node
            .machine
            .sh(&format!("grep 'cannot be read' {RUN}/logs/serve"));
        assert!(log.contains(&name), "{log}");
        // A pod with the grant gets no container.
        let refused = node.try_pod("a", "torn", IDLE, 3);
        let refused = refused.expect_err("nobody knows who uses the volume");
        assert!(refused.contains("cannot be read"), "{refused}");
        println!("    {tear}: {refused}");
        node.remove_all_pods();
    }
    let suspended = node.av("actor suspend agents/a --wait --timeout 4s");
    suspended.expect_err("its release cannot be proven");
    println!("    suspended: {}", shown(&mut node));
    // Whoever has the record's bytes may give them back.
    node.kill_serve();
    node.machine.sh("cp /d/kept/*.json /s/av/records/ && sync");
    node.serve();
    node.suspend("a");
    node.resume("a");
    let agent = node.pod("a", "p2", IDLE);
    assert_eq!(node.exec(&agent, "cat /my-data/f"), "kept");
    node.finish("a");
}

/// What `volume show` tells of a release that cannot be: the node and the record.
fn shown(node: &mut Node) -> String {
    let volume = node.volume("a");
    let attachment = &volume["attachments"][0];
    assert_eq!(attachment["node"], "node-a", "{volume}");
    let trouble = attachment["trouble"]["message"].as_str();
    let trouble = trouble.unwrap_or_default().to_owned();
    assert!(trouble.contains("cannot be read"), "{volume}");
    trouble
}

fn a_full_disk_refuses_containers_and_loses_nothing(disks: &Disks) {
    let mut node = Node::up(disks);
    let agent = running(&mut node);
    node.create("b");
    node.resume("b");
    node.machine
        .try_sh("dd if=/dev/zero of=/s/full bs=64k; dd if=/dev/zero of=/s/full2 bs=512; sync");
    without_room(&mut node, &agent);
    node.machine.sh("rm /s/full /s/full2 && sync");
    with_room_again(node);
}

fn a_read_only_disk_refuses_containers_and_loses_nothing(disks: &Disks) {
    let mut node = Node::up(disks);
    let agent = running(&mut node);
    node.create("b");
    node.resume("b");
    // As after an error of the device.
    node.machine
        .sh("echo 1 > /sys/fs/ext4/ubdb/trigger_fs_error");
    node.until("the file system is read-only", |node| {
        node.machine.try_sh("touch /s/x").0 != 0
    });
    without_room(&mut node, &agent);
    // Started anew, it says so and does not serve.
    node.kill_serve();
    node.start();
    node.until("the daemon gives up", |node| !node.serves());
    let log = node.machine.sh(&format!("tail -n 5 {RUN}/logs/serve"));
    assert!(log.to_lowercase().contains("read-only"), "{log}");
    println!("    at start: {}", log.lines().last().unwrap_or_default());
    node.machine
        .sh("umount /s && e2fsck -p /dev/ubdb; mount -t ext4 -o errors=remount-ro /dev/ubdb /s");
    node.machine.sh(&format!(
        "grep -c 'actor-volumes.*connected' {RUN}/logs/containerd \
         | {{ read n; yes | head -n $n > {RUN}/starts; }}"
    ));
    node.serve();
    with_room_again(node);
}

/// The actor that runs goes on; another gets no container, and is told why.
fn without_room(node: &mut Node, agent: &str) {
    assert_eq!(
        node.exec(agent, "echo more >> /my-data/f; cat /my-data/f"),
        "kept\nmore"
    );
    let refused = node.try_pod("b", "no-room", IDLE, 5);
    let refused = refused.expect_err("nothing can be recorded");
    assert!(refused.contains("cannot write the record"), "{refused}");
    println!("    the container: {refused}");
    if let Err(why) = node.av("actor create agents/c --template one") {
        println!("    a new actor: {why}");
    }
    assert_eq!(node.exec(agent, "cat /my-data/f"), "kept\nmore");
}

/// Both actors have their volumes, as if nothing had been.
fn with_room_again(mut node: Node) {
    let b = node.pod("b", "room", IDLE);
    node.exec(&b, "echo b > /my-data/f");
    node.remove_all_pods();
    node.suspend("a");
    node.resume("a");
    let a = node.pod("a", "again", IDLE);
    assert_eq!(node.exec(&a, "cat /my-data/f"), "kept\nmore");
    node.remove_all_pods();
    node.suspend("b");
    node.delete("b");
    if node.av("actor delete agents/c --wait").is_err() {
        assert!(!node.must("actor ls").contains("agents/c"));
    }
    node.finish("a");
}

fn wiped_records_disturb_no_running_actor_and_its_volume_counts_as_held(disks: &Disks) {
    let mut node = Node::up(disks);
    let agent = running(&mut node);
    let mounts = node.mounts();
    node.kill_serve();
    node.machine
        .sh("mkdir /d/kept && mv /s/av/records/*.json /d/kept/ && sync");
    node.machine.sh(&format!("rm {RUN}/logs/serve"));
    node.serve();
    is_lost(&mut node, &agent, &mounts);
    let suspended = node.av("actor suspend agents/a --wait --timeout 4s");
    suspended.expect_err("its release cannot be proven");
    println!("    records wiped: {}", shown(&mut node));
    assert_eq!(node.exec(&agent, "cat /my-data/f"), "kept");

    // With its record back, all is as before.
    node.kill_serve();
    node.machine.sh("cp /d/kept/*.json /s/av/records/ && sync");
    node.serve();
    node.remove_all_pods();
    node.suspend("a");
    node.resume("a");
    let agent = node.pod("a", "p2", IDLE);
    assert_eq!(node.exec(&agent, "cat /my-data/f"), "kept");

    // The whole directory: nobody knows the actor any more, and it goes on.
    let mounts = node.mounts();
    node.kill_serve();
    node.machine
        .sh(&format!("rm -r /s/av {RUN}/logs/serve && sync"));
    node.serve();
    is_lost(&mut node, &agent, &mounts);
    assert_eq!(node.must("volume ls -o json").trim(), "[]");
    node.remove_all_pods();
    assert_eq!(
        node.mounts(),
        mounts,
        "somebody unmounted what nobody knows"
    );
    let data = node
        .machine
        .sh("find /d/backend/volumes -name f -exec cat {} +");
    assert_eq!(data, "kept");
}

/// What runs goes on, its volume is named in the log, and no other gets it.
fn is_lost(node: &mut Node, agent: &str, mounts: &[String]) {
    let log = node
        .machine
        .sh(&format!("grep 'cannot be read' {RUN}/logs/serve"));
    assert!(log.contains("something is mounted at /d/m/"), "{log}");
    let refused = node.try_pod("a", &format!("lost-{}", fastrand::u32(..)), IDLE, 3);
    let refused = refused.expect_err("nobody knows who uses the volume");
    println!("    the container: {refused}");
    assert_eq!(node.exec(agent, "cat /my-data/f"), "kept");
    assert_eq!(node.mounts(), mounts);
}
