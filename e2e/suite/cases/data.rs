// SPDX-License-Identifier: Apache-2.0
//! What an actor writes is there for it, and for nobody else.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::cri::ContainerSpec;

use super::{PAIR, SHARED, create, prepare, qualified};
use crate::{
    Case,
    daemon::until,
    driver::Driver,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    on(Driver::Local, "")
}

/// The same cases on any driver, their names with something before them.
pub(super) fn on(driver: Driver, prefix: &str) -> Vec<Case> {
    let case = |name: &str, run| Case::new(&format!("{prefix}{name}"), driver, run);
    let survives = case(
        "data_survives_suspend_and_resume",
        data_survives_suspend_and_resume,
    );
    vec![
        // The versions differ in the runtime, not in the driver.
        if driver == Driver::Local {
            survives.everywhere()
        } else {
            survives
        },
        case(
            "files_of_a_killed_container_are_as_it_left_them",
            files_of_a_killed_container_are_as_it_left_them,
        ),
        case(
            "an_actor_that_crashed_finds_what_it_flushed_last",
            an_actor_that_crashed_finds_what_it_flushed_last,
        ),
        case(
            "two_actors_of_one_template_never_see_each_others_files",
            two_actors_of_one_template_never_see_each_others_files,
        ),
        case(
            "two_containers_of_one_pod_share_the_volume",
            two_containers_of_one_pod_share_the_volume,
        ),
        case(
            "a_read_only_mount_refuses_writes",
            a_read_only_mount_refuses_writes,
        ),
    ]
}

fn data_survives_suspend_and_resume(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let first = node.resume("a");
    let (pod, agent) = node.run_agent(&first);
    assert_eq!(
        node.sh(&agent, "ls -A /my-data"),
        "",
        "a new volume is empty"
    );
    node.sh(
        &agent,
        "mkdir /my-data/d && echo precious > /my-data/d/f && chmod 640 /my-data/d/f",
    );
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(
        node.held_mounts(),
        [""; 0],
        "nothing is mounted for a suspended actor"
    );

    let second = node.resume("a");
    assert_ne!(first, second, "a resume has a generation of its own");
    let (pod, agent) = node.run_agent(&second);
    assert_eq!(node.sh(&agent, "cat /my-data/d/f"), "precious");
    assert_eq!(node.sh(&agent, "stat -c %a /my-data/d/f"), "640");
    node.remove_pod(&pod);
}

fn files_of_a_killed_container_are_as_it_left_them(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let count = "i=0; while :; do i=$((i+1)); echo line-$i >> /my-data/log; done";
    let writer = node.run(
        &pod,
        &ContainerSpec::new("agent", &["/bin/busybox", "sh", "-c", count]),
    );
    let lines = |id: &str| {
        node.sh(id, "wc -l < /my-data/log")
            .parse::<u64>()
            .unwrap_or(0)
    };
    let before = until("the container has written", SOON, || {
        let output = node.try_sh(&writer, "wc -l < /my-data/log");
        output
            .stdout
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|n| *n > 100)
    });
    kill(node, &writer);

    // As a kubelet restarts it: a new container in the same sandbox.
    let restarted = node.run(&pod, &ContainerSpec::idle("agent").attempt(1));
    let after = lines(&restarted);
    assert!(
        after >= before,
        "{before} lines were seen, {after} are left"
    );
    node.sh(&restarted, "awk '$0 != \"line-\" NR {exit 1}' /my-data/log");
    let sum = node.sh(&restarted, "sha256sum /my-data/log");
    node.remove_pod(&pod);
    node.suspend("a");
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "sha256sum /my-data/log"), sum);
    node.remove_pod(&pod);
}

fn an_actor_that_crashed_finds_what_it_flushed_last(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let count = "i=0; while :; do i=$((i+1)); echo line-$i >> /my-data/log; sync; \
                 echo $i > /my-data/flushed; done";
    let writer = node.run(
        &pod,
        &ContainerSpec::new("agent", &["/bin/busybox", "sh", "-c", count]),
    );
    let flushed = |more_than: u64| {
        until("the container has written", SOON, || {
            let output = node.try_sh(&writer, "cat /my-data/flushed");
            let number = output.stdout.trim().parse::<u64>().ok();
            number.filter(|n| *n > more_than)
        })
    };
    // What a memory image of that moment would say.
    let image = flushed(5);
    let last = flushed(image + 5);
    kill(node, &writer);
    node.must(&["actor", "crash", &qualified("a"), "--wait"]);
    assert_eq!(node.held_mounts(), [""; 0], "it is released");
    // The sandbox is still there, and its word is over.
    let again = ContainerSpec::idle("agent").attempt(1);
    let refused = node.cri.create_container(&pod, &again);
    assert!(refused.is_err(), "the grant of before the crash counts");
    node.remove_pod(&pod);

    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let lines = node.sh(&agent, "wc -l < /my-data/log").parse::<u64>();
    assert!(
        lines.as_ref().is_ok_and(|n| *n >= last),
        "{lines:?}, {last}"
    );
    node.sh(&agent, "awk '$0 != \"line-\" NR {exit 1}' /my-data/log");
    node.remove_pod(&pod);
}

/// Ends the container's first process as the kernel would, and waits until
/// the runtime has noticed.
fn kill(node: &Node, container: &str) {
    let (_, info) = node.cri.container_status(container).expect("it runs");
    let pid = info["pid"].as_i64().and_then(|p| i32::try_from(p).ok());
    let pid = pid
        .and_then(Pid::from_raw)
        .expect("a running container has a pid");
    kill_process(pid, Signal::KILL).expect("its process is there");
    until(
        "the runtime notices the end",
        Duration::from_secs(10),
        || {
            let (status, _) = node.cri.container_status(container).ok()?;
            (status.finished_at > 0).then_some(())
        },
    );
}

fn two_actors_of_one_template_never_see_each_others_files(node: &mut Node) {
    prepare(node);
    let mut pods = Vec::new();
    for actor in ["a", "b"] {
        create(node, actor, SHARED);
        let annotations = node.resume(actor);
        let (pod, agent) = node.run_agent(&annotations);
        assert_eq!(
            node.sh(&agent, "ls -A /my-data"),
            "",
            "actor {actor} starts empty"
        );
        node.sh(&agent, &format!("echo {actor} > /my-data/of-{actor}"));
        pods.push((actor, pod, agent));
    }
    for (actor, pod, agent) in &pods {
        assert_eq!(node.sh(agent, "ls -A /my-data"), format!("of-{actor}"));
        node.remove_pod(pod);
        node.suspend(actor);
    }
    // Again, the other way round, in new sandboxes.
    for actor in ["b", "a"] {
        let annotations = node.resume(actor);
        let (_, agent) = node.run_agent(&annotations);
        assert_eq!(node.sh(&agent, "ls -A /my-data"), format!("of-{actor}"));
    }
}

fn two_containers_of_one_pod_share_the_volume(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let one = node.run(&pod, &ContainerSpec::idle("one"));
    let two = node.run(&pod, &ContainerSpec::idle("two"));
    node.sh(&one, "echo from-one > /my-data/1");
    assert_eq!(node.sh(&two, "cat /my-data/1"), "from-one");
    node.sh(&two, "echo from-two > /my-data/2");
    assert_eq!(node.sh(&one, "cat /my-data/2"), "from-two");

    // The end of one does not take the volume from the other.
    node.cri.stop_container(&one).expect("it stops");
    node.cri.remove_container(&one).expect("it is removed");
    assert_eq!(
        node.sh(&two, "cat /my-data/1 && echo more >> /my-data/2"),
        "from-one"
    );
    node.remove_pod(&pod);
}

fn a_read_only_mount_refuses_writes(node: &mut Node) {
    prepare(node);
    create(node, "a", PAIR);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    let reader = node.run(&pod, &ContainerSpec::idle("reader"));
    node.sh(&agent, "echo here > /my-data/f");
    assert_eq!(node.sh(&reader, "cat /my-data/f"), "here");
    for line in [
        "echo x > /my-data/new",
        "echo x >> /my-data/f",
        "rm /my-data/f",
    ] {
        let output = node.try_sh(&reader, line);
        assert_ne!(output.code, 0, "`{line}` must be refused");
        assert!(
            output.stderr.contains("Read-only file system"),
            "{}",
            output.stderr
        );
    }
    node.sh(&agent, "test -f /my-data/f && ! test -e /my-data/new");
    node.remove_pod(&pod);
}
