// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::model::{
    AccessMode, Audience, Generation, GrantActor, GrantDevice, GrantMount, GrantVolume,
};

fn label(text: &str) -> DnsLabel {
    text.parse().unwrap()
}

fn volume(name: &str, mode: VolumeMode) -> GrantVolume {
    GrantVolume {
        name: label(name),
        uid: name.parse().unwrap(),
        generation: Generation(1),
        driver: "one.test".parse().unwrap(),
        volume_id: name.into(),
        volume_mode: mode,
        fs_type: String::new(),
        access_mode: AccessMode::SingleNodeSingleWriter,
        mount_flags: Vec::new(),
        mount_group: String::new(),
        secret_refs: Default::default(),
        volume_context: Default::default(),
        publish_context: Default::default(),
    }
}

fn mount(volume: &str, path: &str) -> GrantMount {
    GrantMount {
        container: None,
        volume: label(volume),
        mount_path: path.into(),
        read_only: false,
        sub_path: None,
    }
}

/// Two volumes with three mounts, and a block device.
fn grant() -> Grant {
    Grant {
        not_after: None,
        self_contained: false,
        version: 1,
        actor: GrantActor {
            namespace: label("agents"),
            name: label("a"),
            uid: "u".parse().unwrap(),
        },
        node: "node".parse().unwrap(),
        audience: Audience::Pod {
            namespace: label("agents"),
            pod: None,
        },
        volumes: vec![
            volume("v1", VolumeMode::Filesystem),
            volume("v2", VolumeMode::Filesystem),
            volume("raw", VolumeMode::Block),
        ],
        mounts: vec![
            mount("v1", "/data"),
            mount("v1", "/more"),
            mount("v2", "/var/lib/x"),
        ],
        devices: vec![GrantDevice {
            container: None,
            volume: label("raw"),
            device_path: "/dev/xvda".into(),
        }],
    }
}

fn sandbox() -> SandboxView {
    SandboxView {
        namespace: "agents".into(),
        ..SandboxView::default()
    }
}

/// What everything above keeps to, to the last one.
fn policy() -> Policy {
    Policy {
        drivers: Choice::Only(["one.test".parse().unwrap()].into()),
        namespaces: namespaces([label("agents")]),
        paths: PathRules::default(),
        no_exec: Choice::Only(BTreeSet::new()),
        block_devices: true,
        max_volumes: 3,
        max_mounts: 3,
        max_devices: 1,
    }
}

#[test]
fn what_keeps_to_the_policy_is_allowed() {
    assert_eq!(decide(&grant(), &sandbox(), 0, &policy()), Ok(()));
}

#[test]
fn each_rule_denies_by_its_name_with_what_to_do() {
    type Break = fn(&mut Grant, &mut SandboxView, &mut Policy);
    let cases: [(Break, Rule, &str); 11] = [
        (
            |_, s, _| s.namespace = "others".into(),
            Rule::Namespaces,
            "policy.namespaces of this node does not name namespace \"others\"",
        ),
        (
            |_, _, p| p.namespaces = Choice::Only(BTreeSet::new()),
            Rule::Namespaces,
            "policy.namespaces",
        ),
        (
            |g, _, _| g.volumes[1].driver = "two.test".parse().unwrap(),
            Rule::Drivers,
            "policy.drivers of this node does not name driver two.test of volume v2",
        ),
        (
            |_, _, p| p.block_devices = false,
            Rule::BlockDevices,
            "policy.block_devices of this node is false, and volume raw",
        ),
        (
            |_, _, p| p.max_volumes = 2,
            Rule::MaxVolumes,
            "policy.max_volumes of this node is 2",
        ),
        (
            |_, _, p| p.max_mounts = 2,
            Rule::MaxMounts,
            "policy.max_mounts of this node is 2",
        ),
        (
            |_, _, p| p.max_devices = 0,
            Rule::MaxDevices,
            "policy.max_devices of this node is 0",
        ),
        (
            |g, _, _| g.mounts[2].mount_path = "/etc/my-app".into(),
            Rule::MountPaths,
            "forbids volume v2 of actor agents/a at /etc/my-app, which is below /etc",
        ),
        (
            |g, _, _| g.mounts[0].mount_path = "//data/../proc".into(),
            Rule::MountPaths,
            "policy.allow_mount_paths",
        ),
        (
            |g, _, _| g.devices[0].device_path = "/dev/null".into(),
            Rule::DevicePaths,
            "own null",
        ),
        (
            |g, _, _| g.devices[0].device_path = "/bin/sh".into(),
            Rule::DevicePaths,
            "below /bin",
        ),
    ];
    for (break_it, rule, message) in cases {
        let (mut grant, mut sandbox, mut policy) = (grant(), sandbox(), policy());
        break_it(&mut grant, &mut sandbox, &mut policy);
        let denial = decide(&grant, &sandbox, 0, &policy).expect_err(message);
        assert_eq!(denial.rule, rule);
        assert!(denial.message.contains(message), "{}", denial.message);
        let error = Error::from(denial);
        assert_eq!(error.kind(), crate::error::Kind::PermissionDenied);
    }
}

#[test]
fn the_volumes_of_other_actors_of_the_pod_count() {
    let denial = decide(&grant(), &sandbox(), 1, &policy()).unwrap_err();
    assert_eq!(denial.rule, Rule::MaxVolumes);
    assert!(
        denial.message.contains("would have 4 volumes"),
        "{denial:?}"
    );
    assert!(decide(&grant(), &sandbox(), usize::MAX, &policy()).is_err());
}
