// SPDX-License-Identifier: Apache-2.0
//! A hostile driver: what it says is refused where it is not what CSI allows, never
//! becomes a path, and never reaches a terminal or a log as it is.

use std::fs;

use serde_json::{Value, json};
use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare, qualified};
use crate::{
    Case,
    driver::{self, Driver},
    leaks,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Testkit, run);
    vec![
        case(
            "hostile_volume_ids_and_topologies_are_refused_and_nothing_is_changed",
            hostile_volume_ids_and_topologies_are_refused_and_nothing_is_changed,
        ),
        case(
            "hostile_node_ids_and_contexts_are_refused_and_nothing_is_changed",
            hostile_node_ids_and_contexts_are_refused_and_nothing_is_changed,
        ),
        case(
            "hostile_messages_and_contexts_stay_text_and_never_become_paths",
            hostile_messages_and_contexts_stay_text_and_never_become_paths,
        ),
    ]
}

fn hostile_volume_ids_and_topologies_are_refused_and_nothing_is_changed(node: &mut Node) {
    prepare(node);
    node.driver_well();
    for (number, (hostile, said)) in [
        (
            json!({"volume_id": "../../../etc/x\u{0}y"}),
            "control characters",
        ),
        (
            json!({"volume_id": "v\nlevel=error msg=forged"}),
            "control characters",
        ),
        (
            json!({"volume_id": "x".repeat(129)}),
            "volume id of 129 bytes",
        ),
        (json!({"volume_id": ""}), "volume id of 0 bytes"),
        (
            json!({"volume_topology": {"zone\u{1b}[2J": "z"}}),
            "topology",
        ),
        (json!({"volume_topology": {"": "z"}}), "key is empty"),
        (
            json!({"volume_topology": {"zone": "x".repeat(5000)}}),
            "topology of 5004 bytes",
        ),
        (
            json!({"volume_context": {"k": "x".repeat(5000)}}),
            "volume_context of 5001 bytes",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // Anew each time: the first pod of a node makes directories of its own.
        let before = surroundings(node);
        driver::set_hostile(&node.dir, &hostile);
        let actor = format!("a{number}");
        let name = qualified(&actor);
        let refused = node
            .av(&["actor", "create", &name, "--template", SHARED, "--wait"])
            .expect_err(said);
        assert!(refused.contains(said), "{said}: {refused}");
        is_text(&refused);
        assert_eq!(surroundings(node), before, "{said}");
        // Of a volume without an id nothing can be deleted, and it is found again. The
        // others were deleted at once, and another actor goes on with a mended driver.
        node.driver_well();
        let actor = if hostile["volume_id"] == "" {
            actor
        } else {
            node.delete(&actor);
            format!("b{number}")
        };
        create(node, &actor, SHARED);
        let annotations = node.resume(&actor);
        let (pod, agent) = node.run_agent(&annotations);
        node.sh(&agent, "touch /my-data/f");
        node.remove_pod(&pod);
        node.suspend(&actor);
        node.delete(&actor);
    }
}

fn hostile_node_ids_and_contexts_are_refused_and_nothing_is_changed(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    node.driver_well();
    let before = surroundings(node);
    for (hostile, said) in [
        (
            json!({"node_id": "node-a\nforged"}),
            "node id that holds control characters",
        ),
        (json!({"node_id": "x".repeat(257)}), "node id of 257 bytes"),
        (json!({"node_topology": {"zone\u{7}": "z"}}), "topology"),
        (
            json!({"publish_context": {"k": "x".repeat(5000)}}),
            "publish_context of 5001 bytes",
        ),
    ] {
        driver::set_hostile(&node.dir, &hostile);
        let name = qualified("a");
        let resume = ["actor", "resume", &name, "--timeout", "4s"];
        let refused = node.av(&resume).expect_err(said);
        assert!(refused.contains(said), "{said}: {refused}");
        is_text(&refused);
        assert_eq!(surroundings(node), before, "{said}");
        node.driver_well();
        node.suspend("a");
    }
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn hostile_messages_and_contexts_stay_text_and_never_become_paths(node: &mut Node) {
    prepare(node);
    let context = json!({"../../../../etc/cron.d/x": "\u{0}\n* * * * * root rm -rf /"});
    driver::set_hostile(&node.dir, &json!({"volume_context": context}));
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let told: String = annotations.values().cloned().collect();
    assert!(
        !told.contains("cron"),
        "contexts stay out of the annotations"
    );
    let message = "\u{1b}[2J\u{1b}]0;gone\u{7}\nlevel=error msg=forged\r";
    driver::set_hostile_message(&node.dir, "NodePublishVolume", message);
    let pod = node.run_pod(&annotations);
    let said = crate::daemon::until("the driver's message comes through", SOON, || {
        let refused = node
            .cri
            .create_container(&pod, &ContainerSpec::idle("agent"));
        let said = refused.expect_err("its volume is not published").message;
        said.contains("msg=forged").then_some(said)
    });
    is_text(&said);
    driver::set_hostile(&node.dir, &json!({"volume_context": context}));
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    node.sh(&agent, "touch /my-data/f");

    // Below the mount root there is nothing but hashes, whatever the ids are.
    let names = leaks::entries(&node.dir.join("m"));
    let is_hash = |name: &String| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(!names.is_empty() && names.iter().all(is_hash), "{names:?}");
    let log = fs::read(node.log("serve")).expect("the daemon writes a log");
    let odd = |b: &u8| b.is_ascii_control() && *b != b'\n' && *b != b'\t';
    assert_eq!(
        log.iter().find(|b| odd(b)),
        None,
        "a control character is in the log"
    );
    let log = String::from_utf8_lossy(&log);
    let forged = |line: &&str| line.starts_with("level=error msg=forged");
    assert_eq!(log.lines().find(forged), None);
    node.remove_pod(&pod);
    node.driver_well();
}

fn is_text(said: &str) {
    let odd = said
        .trim_end()
        .chars()
        .find(|c| c.is_control() && *c != '\n');
    assert_eq!(odd, None, "{said:?}");
}

/// What stands beside what we write: an id that became a path would show here.
fn surroundings(node: &Node) -> Value {
    let of = |dir: &str| leaks::entries(&node.dir.join(dir));
    json!([of("."), of("m"), of("av"), leaks::entries("/etc".as_ref())])
}
