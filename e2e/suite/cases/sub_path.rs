// SPDX-License-Identifier: Apache-2.0
//! Directories of a volume, mounted instead of the whole.

use testkit::cri::{ContainerSpec, Pod};

use super::{create, prepare, runs_in_the_end};
use crate::{
    Case,
    daemon::{until, until_true},
    driver::Driver,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    let each = |driver, name: &str, run| Case::new(name, driver, run);
    let name = "directories_of_a_volume_keep_their_data_and_their_containers_apart";
    let killed = "our_daemon_killed_between_two_directories_goes_on_and_leaves_nothing";
    let link = "a_link_that_the_actor_planted_leads_no_later_container_out_of_its_volume";
    vec![
        each(Driver::Local, name, keep_their_data).everywhere(),
        each(
            Driver::TestkitLoop,
            &format!("loop_{name}"),
            keep_their_data,
        )
        .guarded(),
        each(Driver::Testkit, killed, our_daemon_killed).guarded(),
        each(Driver::TestkitLoop, link, a_link_of_the_actor).guarded(),
    ]
}

/// The container `agent` has the volume, and its cache beside it; `reader` may look
/// at the cache, and has notes of its own.
const TEMPLATE: &str = "
kind: ActorTemplate
metadata: {name: parts}
spec:
  containers:
  - name: agent
    volumeMounts:
    - {name: vol1, mountPath: /my-data}
    - {name: vol1, mountPath: /cache, subPath: var/cache}
  - name: reader
    volumeMounts:
    - {name: vol1, mountPath: /cache, subPath: var/cache, readOnly: true}
    - {name: vol1, mountPath: /notes, subPath: notes}
  volumes:
  - {name: vol1, externalVolumeTemplate: {capacity: 64Mi, storageClassName: fast}}
";

fn actor(node: &Node) {
    prepare(node);
    node.apply("template", TEMPLATE);
    create(node, "a", "parts");
}

fn both(node: &Node, pod: &Pod) -> (String, String) {
    let [agent, reader] = ["agent", "reader"].map(|n| node.run(pod, &ContainerSpec::idle(n)));
    (agent, reader)
}

fn keep_their_data(node: &mut Node) {
    actor(node);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let (agent, reader) = both(node, &pod);
    node.sh(&agent, "echo one > /cache/f && echo whole > /my-data/f");
    node.sh(&reader, "[ $(cat /cache/f) = one ] && echo two > /notes/f");
    let refused = node.try_sh(&reader, "echo three > /cache/f");
    assert!(refused.stderr.contains("Read-only"), "{}", refused.stderr);
    let seen = node.sh(
        &agent,
        "cat /my-data/var/cache/f /my-data/notes/f /my-data/f",
    );
    assert_eq!(seen, "one\ntwo\nwhole");
    assert_eq!(
        node.sh(&reader, "ls /notes /cache"),
        "/cache:\nf\n\n/notes:\nf"
    );
    let above = node.try_sh(&reader, "ls /notes/../my-data /notes/../var");
    assert_ne!(above.code, 0, "the volume is to be seen: {}", above.stdout);

    // Our daemon is away and back; a container starts again meanwhile and after.
    node.kill_serve();
    node.sh(&agent, "echo more >> /cache/f");
    node.start_serve();
    node.cri.remove_container(&reader).expect("it is removed");
    let reader = node.run(&pod, &ContainerSpec::idle("reader").attempt(1));
    assert_eq!(node.sh(&reader, "cat /cache/f /notes/f"), "one\nmore\ntwo");
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);

    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let (agent, reader) = both(node, &pod);
    assert_eq!(
        node.sh(&agent, "cat /cache/f /my-data/f"),
        "one\nmore\nwhole"
    );
    assert_eq!(node.sh(&reader, "cat /notes/f"), "two");
    node.remove_pod(&pod);
}

fn our_daemon_killed(node: &mut Node) {
    actor(node);
    let points = [
        ("sub-path-intended", "unpublish-intended"),
        ("sub-path-answered", "sub-path-hidden"),
        ("publish-recorded", "unpublish-answered"),
    ];
    for (round, (publish, release)) in points.into_iter().enumerate() {
        let annotations = node.resume("a");
        let mut pod = None;
        node.die_at(publish, |node| pod = Some(node.run_pod(&annotations)));
        let pod = pod.expect("it was run");
        let agent = runs_in_the_end(node, &pod, &ContainerSpec::idle("agent"));
        let lines = node.sh(&agent, "echo x >> /cache/f && wc -l < /cache/f");
        assert_eq!(lines.trim(), (round + 1).to_string());
        node.die_at(release, |node| node.remove_pod(&pod));
        until_true("its volume is released", SOON, || {
            node.held_mounts().is_empty()
        });
        node.suspend("a");
    }
}

fn a_link_of_the_actor(node: &mut Node) {
    actor(node);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let (agent, reader) = both(node, &pod);
    node.sh(&reader, "echo mine > /notes/f");
    // It changes nothing for what is mounted, nor for who starts again.
    node.sh(&agent, "cd /my-data && mv notes old && ln -s /etc notes");
    assert_eq!(node.sh(&reader, "cat /notes/f && ls /notes"), "mine\nf");
    node.cri.remove_container(&reader).expect("it is removed");
    let reader = node.run(&pod, &ContainerSpec::idle("reader").attempt(1));
    assert_eq!(node.sh(&reader, "ls /notes"), "f");
    node.remove_pod(&pod);
    node.suspend("a");

    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("reader");
    until("it is refused for the link", SOON, || {
        let refusal = node.cri.create_container(&pod, &spec);
        let refusal = refusal.expect_err("it leads out of the volume");
        let why = "subPath notes of volume vol1: cannot be mounted: \"notes\" is a symbolic link, which is never followed";
        refusal.message.contains(why).then_some(())
    });
    let begun = node.held_mounts();
    assert!(begun.iter().all(|m| !m.contains("/etc")), "{begun:?}");
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
}
