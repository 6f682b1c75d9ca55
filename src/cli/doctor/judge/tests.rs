// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::{
    cli::doctor::{KeyFacts, RuntimeSettings, containerd::RuntimeHandler},
    config::Config,
    error::Error,
    proto::api::{AgentDriver, NriStatus, StuckVolume},
};

const OUR_GUARD: &str = "/usr/bin/actor-volumes-runtime";

fn away<T>() -> Result<T> {
    Err(Error::unavailable("away"))
}

fn place(fs_type: &str) -> Result<Place> {
    Ok(Place {
        fs_type: fs_type.into(),
        propagates: true,
    })
}

/// A node where everything is as it must be.
fn well() -> Facts {
    Facts {
        config: Config::default(),
        daemon: Ok(AgentStatus {
            node: "n".into(),
            version: "1".into(),
            nri: Some(NriStatus {
                connected: true,
                synchronized: true,
                request_timeout_ms: 2000,
                events: 7,
                ..NriStatus::default()
            }),
            drivers: vec![AgentDriver {
                name: "d.test".into(),
                problem: String::new(),
            }],
            ..AgentStatus::default()
        }),
        nri_socket: Ok(()),
        keys: KeyFacts {
            trusted: vec!["0123456789abcdef".into()],
            problems: vec![],
            signing: Some(Ok(1)),
        },
        containerd: Ok(RuntimeSettings {
            nri: true,
            validator: None,
            runtimes: vec![RuntimeHandler {
                name: "runc".into(),
                binary: OUR_GUARD.into(),
                passes_annotations: true,
            }],
        }),
        guards: vec![OUR_GUARD.into()],
        real_runtime: Ok("/usr/sbin/runc".into()),
        mount_root: place("ext4"),
        state_dir: place("ext4"),
        strays: Ok(vec![]),
        sight: Ok(()),
        hooks: vec![("/h/50-actor-volumes.json".into(), None)],
        silent_drivers: vec![],
    }
}

fn worst(facts: &Facts, check: &str) -> Level {
    let findings = judge(facts);
    for found in &findings {
        let mended = !found.fix.is_empty() || found.check == "left-overs";
        assert!(found.level == Level::Ok || mended, "{found:?} has no fix");
    }
    let of_check = findings.iter().filter(|f| f.check == check);
    of_check.map(|f| f.level).max().unwrap()
}

#[test]
fn a_node_that_is_well_has_no_complaint() {
    let findings = judge(&well());
    let complaints: Vec<_> = findings.iter().filter(|f| f.level > Level::Ok).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn each_fault_is_told_by_its_own_check() {
    use Level::{Fail, Warn};
    type Change = fn(&mut Facts);
    fn nri(facts: &mut Facts) -> &mut NriStatus {
        let status = facts.daemon.as_mut().unwrap();
        status.nri.as_mut().unwrap()
    }
    fn settings(facts: &mut Facts) -> &mut RuntimeSettings {
        facts.containerd.as_mut().unwrap()
    }
    let faults: [(&str, Level, Change); 29] = [
        ("daemon", Fail, |f| f.daemon = away()),
        ("nri", Fail, |f| settings(f).nri = false),
        ("nri", Fail, |f| nri(f).connected = false),
        ("nri", Fail, |f| nri(f).synchronized = false),
        ("events", Warn, |f| nri(f).events = 0),
        ("request timeout", Warn, |f| {
            nri(f).request_timeout_ms = 1999
        }),
        ("guard", Fail, |f| f.guards.clear()),
        ("guard", Fail, |f| {
            settings(f).runtimes[0].passes_annotations = false
        }),
        ("guard", Fail, |f| settings(f).runtimes.clear()),
        ("guard", Fail, |f| f.real_runtime = away()),
        ("guard", Warn, |f| f.containerd = away()),
        ("validator", Warn, |f| f.containerd = away()),
        ("validator", Warn, |f| {
            f.guards.clear();
            settings(f).validator = Some(false);
        }),
        ("keys", Fail, |f| f.keys.trusted.clear()),
        ("keys", Fail, |f| f.keys.signing = Some(Err("gone".into()))),
        ("keys", Warn, |f| f.keys.signing = Some(Ok(366))),
        ("keys", Warn, |f| f.keys.problems.push("x".into())),
        ("unsigned grants", Warn, |f| {
            f.config.node.trusted_namespaces = vec!["agents".parse().unwrap()];
        }),
        ("driver", Fail, |f| {
            f.daemon.as_mut().unwrap().drivers[0].problem = "x".into();
        }),
        ("driver", Fail, |f| {
            f.daemon.as_mut().unwrap().drivers.clear()
        }),
        ("mount root", Warn, |f| {
            f.mount_root.as_mut().unwrap().propagates = false;
        }),
        ("mount root", Fail, |f| f.mount_root = away()),
        ("state directory", Fail, |f| f.state_dir = place("tmpfs")),
        ("state directory", Warn, |f| f.state_dir = place("overlay")),
        ("processes", Fail, |f| {
            f.daemon.as_mut().unwrap().no_sight = "x".into();
        }),
        ("left-overs", Warn, |f| {
            f.daemon.as_mut().unwrap().strays.push("/m/x".into());
        }),
        ("left-overs", Warn, |f| {
            let daemon = f.daemon.as_mut().unwrap();
            daemon.uncertain.push("sandbox s1: x".into());
        }),
        ("volumes", Warn, |f| {
            let daemon = f.daemon.as_mut().unwrap();
            daemon.stuck.push(StuckVolume::default());
        }),
        ("daemon", Warn, |f| {
            f.daemon.as_mut().unwrap().draining = true
        }),
    ];
    for (number, (check, level, change)) in faults.into_iter().enumerate() {
        let mut facts = well();
        change(&mut facts);
        assert_eq!(worst(&facts, check), level, "fault {number}, {check}");
    }
}

#[test]
fn one_of_guard_and_validator_is_less_than_a_failure() {
    let mut facts = well();
    facts.guards.clear();
    facts.containerd.as_mut().unwrap().validator = Some(true);
    assert_eq!(worst(&facts, "guard"), Level::Warn);
    assert_eq!(worst(&facts, "validator"), Level::Ok);
}

#[test]
fn without_the_daemon_the_rest_is_still_told() {
    let mut facts = well();
    facts.daemon = away();
    assert_eq!(worst(&facts, "nri"), Level::Warn);
    assert_eq!(worst(&facts, "processes"), Level::Ok);
    facts.nri_socket = away();
    facts.sight = away();
    facts.strays = Ok(vec!["/m/x".into()]);
    facts.silent_drivers = vec![("d.test".into(), "x".into())];
    facts.config = Config::parse("[[driver]]\nname = \"d.test\"\nendpoint = \"/x\"\n").unwrap();
    for (check, level) in [
        ("nri", Level::Fail),
        ("processes", Level::Fail),
        ("driver", Level::Fail),
        ("left-overs", Level::Warn),
    ] {
        assert_eq!(worst(&facts, check), level, "{check}");
    }
}

#[test]
fn a_policy_that_opens_the_kernels_files_is_warned_of_and_an_open_one_is_not() {
    let mut facts = well();
    facts.config.policy.namespaces = crate::config::Listed::All;
    assert_eq!(worst(&facts, "policy"), Level::Ok);
    facts.config.policy.allow_mount_paths = vec!["/proc/sys".into()];
    assert_eq!(worst(&facts, "policy"), Level::Warn);
}

#[test]
fn a_hook_whose_program_is_not_there_fails() {
    let mut facts = well();
    assert_eq!(worst(&facts, "hooks"), Level::Ok);
    facts.hooks[0].1 = Some("/usr/bin/gone".into());
    assert_eq!(worst(&facts, "hooks"), Level::Fail);
    facts.hooks.clear();
    assert!(judge(&facts).iter().all(|f| f.check != "hooks"));
}
