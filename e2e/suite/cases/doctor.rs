// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes doctor` on real nodes.

use std::{collections::BTreeMap, process::Command};

use testkit::cri::ContainerSpec;

use super::{SHARED, create, prepare};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
    setup::actor_volumes,
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Local, run).everywhere();
    vec![
        case(
            "the_doctor_finds_a_guarded_node_well_and_each_fault_of_it",
            of_a_guarded_node,
        )
        .guarded(),
        case(
            "the_doctor_tells_what_a_node_without_the_guard_lacks",
            of_a_node_without_the_guard,
        ),
    ]
}

/// The worst level of each check, and the exit status.
pub(super) fn doctor(node: &Node) -> (BTreeMap<String, String>, i32) {
    let (findings, status) = findings(node);
    let mut levels: BTreeMap<String, String> = BTreeMap::new();
    for found in findings {
        let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        let rank = |level: &str| ["ok", "warn", "fail"].iter().position(|l| *l == level);
        let level = levels.entry(word("check")).or_insert_with(|| "ok".into());
        if rank(&word("level")) > rank(level) {
            *level = word("level");
        }
    }
    (levels, status)
}

/// All that is found, and the exit status.
pub(super) fn findings(node: &Node) -> (Vec<serde_json::Value>, i32) {
    let output = Command::new("timeout")
        .args(["--signal", "KILL", "60"])
        .arg(actor_volumes().get_program())
        .args(["doctor", "-o", "json", "--config"])
        .arg(node.dir.join("config.toml"))
        .output()
        .expect("our binary runs");
    let findings = serde_json::from_slice(&output.stdout);
    let findings = findings.unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (findings, output.status.code().expect("it was not killed"))
}

/// These checks have these levels, all others are well, but for the state
/// directory: the suite's is gone with the suite.
fn expect(node: &Node, expected: &[(&str, &str)]) {
    let (levels, status) = doctor(node);
    assert_eq!(levels["state directory"], "fail", "it is on a tmpfs");
    assert_eq!(status, 1);
    for (check, level) in &levels {
        let wanted = expected.iter().find(|(name, _)| name == check);
        let wanted = wanted.map_or("ok", |(_, level)| level);
        if check != "state directory" {
            assert_eq!(level, wanted, "{check} in {levels:?}");
        }
    }
    for (check, _) in expected {
        assert!(levels.contains_key(*check), "{check} in {levels:?}");
    }
}

fn of_a_guarded_node(node: &mut Node) {
    expect(node, &[("events", "warn")]);
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let (pod, _) = node.run_agent(&annotations);
    expect(node, &[]);

    // Each fault is found, and gone when it is mended.
    let stray = node.dir.join("m/stray");
    std::fs::create_dir(&stray).expect("the mount root takes directories");
    shell(&format!("mount -t tmpfs none {}", stray.display()));
    expect(node, &[("left-overs", "warn")]);
    shell(&format!("umount {0} && rmdir {0}", stray.display()));

    node.kill_driver();
    until_true("the driver's absence is seen", SOON, || {
        doctor(node).0["driver"] == "fail"
    });
    node.start_driver();
    until_true("the driver is seen again", SOON, || {
        doctor(node).0["driver"] == "ok"
    });

    node.kill_serve();
    expect(node, &[("daemon", "fail"), ("nri", "warn")]);
    node.start_serve();
    expect(node, &[("events", "warn")]);
    node.remove_pod(&pod);
}

fn of_a_node_without_the_guard(node: &mut Node) {
    let foreign = node.run_pod(&Default::default());
    node.run(&foreign, &ContainerSpec::idle("main"));
    if node.version == "2.3" {
        expect(node, &[("guard", "warn")]);
    } else {
        expect(node, &[("guard", "fail"), ("validator", "warn")]);
    }
}

fn shell(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status();
    assert!(status.expect("sh runs").success(), "{line}");
}
