// SPDX-License-Identifier: Apache-2.0

use proptest::{collection::btree_map, collection::vec, option, prelude::*};

use super::*;
use crate::{
    error::Kind,
    model::{AccessMode, GrantActor, GrantDevice, GrantMount, SecretUse, VolumeUid},
};

fn label(text: &str) -> DnsLabel {
    text.parse().unwrap()
}

pub(in crate::api) fn volume(name: &str) -> GrantVolume {
    GrantVolume {
        name: label(name),
        uid: VolumeUid::new(format!("uid-{name}")).unwrap(),
        generation: Generation(7),
        driver: "hostpath.csi.k8s.io".parse().unwrap(),
        volume_id: format!("id/of#{name}"),
        volume_mode: VolumeMode::Filesystem,
        fs_type: "ext4".into(),
        access_mode: AccessMode::SingleNodeSingleWriter,
        mount_flags: vec!["noatime".into()],
        mount_group: String::new(),
        secret_refs: Default::default(),
        volume_context: [("tier".to_owned(), "gold".to_owned())].into(),
        publish_context: BTreeMap::new(),
    }
}

pub(in crate::api) fn mount(container: Option<&str>, volume: &str, path: &str) -> GrantMount {
    GrantMount {
        container: container.map(label),
        volume: label(volume),
        mount_path: path.into(),
        read_only: false,
        sub_path: None,
    }
}

/// A good grant: two volumes, one of them in one container only.
pub(in crate::api) fn grant() -> Grant {
    Grant {
        version: VERSION,
        actor: GrantActor {
            namespace: label("agents"),
            name: label("my-agent-1"),
            uid: "a-1".parse().unwrap(),
        },
        node: "node-a".parse().unwrap(),
        audience: Audience::Pod {
            namespace: label("agents"),
            pod: None,
        },
        not_after: None,
        self_contained: false,
        volumes: vec![volume("vol1"), volume("vol2")],
        mounts: vec![
            mount(None, "vol1", "/my-data"),
            mount(Some("agent"), "vol2", "/other"),
        ],
        devices: Vec::new(),
    }
}

fn device(volume: &str, path: &str) -> GrantDevice {
    GrantDevice {
        container: None,
        volume: label(volume),
        device_path: path.into(),
    }
}

/// Adds a block volume.
fn raw(grant: &mut Grant) {
    let mut raw = volume("raw");
    raw.volume_mode = VolumeMode::Block;
    grant.volumes.push(raw);
    grant.devices.push(device("raw", "/dev/xvda"));
}

/// Grants that keep every rule.
pub(in crate::api) fn any_grant() -> impl Strategy<Value = Grant> {
    let context = || btree_map("\\PC{1,8}", any::<String>(), 0..3);
    let part = (
        (1..=u64::MAX, "\\PC{1,20}", "[a-z0-9]{0,4}", any::<bool>()),
        vec("\\PC{1,8}", 0..3),
        (context(), context()),
        (option::of("[a-z]{1,5}"), "/\\PC{1,8}x", any::<bool>()),
    );
    let audience = ("[a-z]{1,8}", option::of("[a-z]{1,5}(\\.[a-z]{1,5})?"));
    (vec(part, 1..5), audience, "[a-z0-9.]{0,5}[a-z]").prop_filter_map(
        "paths must be clean",
        |(parts, (namespace, pod), node)| {
            let mut grant = grant();
            grant.node = format!("a{node}").replace("..", ".").parse().ok()?;
            grant.audience = Audience::Pod {
                namespace: label(&namespace),
                pod,
            };
            grant.volumes.clear();
            grant.mounts.clear();
            for (index, part) in parts.into_iter().enumerate() {
                let ((generation, id, fs_type, many), flags, contexts, place) = part;
                let name = format!("v{index}");
                let mut one = volume(&name);
                one.generation = Generation(generation);
                one.volume_id = format!("{index}{id}");
                one.fs_type = fs_type;
                if many {
                    one.access_mode = AccessMode::SingleNodeWriter;
                }
                one.mount_flags = flags;
                (one.volume_context, one.publish_context) = contexts;
                grant.volumes.push(one);
                let (container, path, read_only) = place;
                let mut to = mount(container.as_deref(), &name, &format!("{path}{index}"));
                to.read_only = read_only;
                grant.mounts.push(to);
            }
            check(&grant).is_ok().then_some(grant)
        },
    )
}

#[test]
fn each_broken_rule_is_found_and_named() {
    type Break = fn(&mut Grant);
    let cases: &[(Break, &str)] = &[
        (|g| g.version = 2, "version 2"),
        (|g| g.volumes.clear(), "at least one volume"),
        (|g| g.volumes = vec![volume("v"); 65], "at most 64"),
        (
            |g| g.mounts = vec![mount(None, "vol1", "/x"); 257],
            "at most 256",
        ),
        (
            |g| g.volumes[0].generation = Generation(0),
            "volumes[0]: generation",
        ),
        (|g| g.volumes[0].volume_id.clear(), "volumes[0]: volumeId"),
        (
            |g| g.volumes[1].volume_id = "x".repeat(129),
            "volumes[1]: volumeId",
        ),
        (
            |g| g.volumes[0].fs_type = "a b".into(),
            "volumes[0]: fsType",
        ),
        (
            |g| g.volumes[0].mount_flags = vec!["x".repeat(4097)],
            "mountFlags",
        ),
        (
            |g| {
                g.volumes[0]
                    .volume_context
                    .insert("k".into(), "x".repeat(4096));
            },
            "volumeContext",
        ),
        (
            |g| {
                g.volumes[0]
                    .publish_context
                    .insert("k".into(), "x".repeat(4096));
            },
            "publishContext",
        ),
        (
            |g| g.volumes[1].name = g.volumes[0].name.clone(),
            "volumes[1]: name vol1 is there twice",
        ),
        (
            |g| g.volumes[1].uid = g.volumes[0].uid.clone(),
            "volumes[1]: uid uid-vol1",
        ),
        (
            |g| g.volumes[1].volume_id = g.volumes[0].volume_id.clone(),
            "volumes[1]: volumeId",
        ),
        (
            |g| g.mounts[0].volume = label("other"),
            "mounts[0]: other is no volume",
        ),
        (
            |g| {
                g.mounts.pop();
            },
            "volume vol2 has no mount",
        ),
        (
            |g| g.mounts[0].mount_path = "/a/../b".into(),
            "mounts[0]: mountPath",
        ),
        (
            |g| g.mounts[1].mount_path = g.mounts[0].mount_path.clone(),
            "container agent",
        ),
        (
            |g| g.mounts.push(mount(None, "vol1", "/other")),
            "twice for every container",
        ),
        (
            |g| g.mounts.push(mount(Some("agent"), "vol1", "/other")),
            "mounts[2]",
        ),
        (
            |g| g.volumes[0].volume_mode = VolumeMode::Block,
            "mounts[0]: volume vol1 has volumeMode Block: give it devices",
        ),
        (
            |g| g.devices.push(device("vol1", "/dev/x")),
            "devices[0]: volume vol1 has volumeMode Filesystem: give it mounts",
        ),
        (
            |g| {
                raw(g);
                g.devices.clear();
            },
            "volume raw has no device",
        ),
        (
            |g| {
                raw(g);
                g.devices[0].device_path = "/dev/../x".into();
            },
            "devices[0]: devicePath",
        ),
        (
            |g| {
                raw(g);
                g.devices[0].device_path = "/my-data".into();
            },
            "devices[0]: devicePath \"/my-data\" is there twice",
        ),
        (
            |g| {
                raw(g);
                g.volumes[2].mount_group = "1000".into();
            },
            "mountGroup is for a volume with files",
        ),
        (|g| g.volumes[0].mount_group = "0".into(), "mountGroup"),
        (|g| g.volumes[0].mount_group = "01".into(), "mountGroup"),
        (|g| g.volumes[0].mount_group = "users".into(), "mountGroup"),
        (
            |g| g.volumes[0].mount_group = "2147483648".into(),
            "mountGroup",
        ),
        (
            |g| {
                g.volumes[0]
                    .secret_refs
                    .insert(SecretUse::Provisioner, "a/b".parse().unwrap());
            },
            "secretRefs names provisioner",
        ),
        (
            |g| {
                g.audience = Audience::Host {
                    node: g.node.clone(),
                    container: Some("/c".into()),
                }
            },
            "audience.container",
        ),
        (
            |g| {
                g.audience = Audience::Pod {
                    namespace: label("a"),
                    pod: Some("A".into()),
                }
            },
            "audience.pod",
        ),
    ];
    check(&grant()).unwrap();
    for (break_it, expected) in cases {
        let mut broken = grant();
        break_it(&mut broken);
        let error = check(&broken).expect_err(expected);
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn block_volumes_groups_secrets_and_every_access_mode_are_taken() {
    let mut grant = grant();
    raw(&mut grant);
    grant.volumes[0].mount_group = "2147483647".into();
    for use_ in SecretUse::ALL.into_iter().filter(|u| u.is_of_node()) {
        let secret = "storage/creds".parse().unwrap();
        grant.volumes[0].secret_refs.insert(use_, secret);
    }
    for mode in [
        "SINGLE_NODE_WRITER",
        "SINGLE_NODE_SINGLE_WRITER",
        "SINGLE_NODE_MULTI_WRITER",
        "SINGLE_NODE_READER_ONLY",
        "MULTI_NODE_READER_ONLY",
        "MULTI_NODE_SINGLE_WRITER",
        "MULTI_NODE_MULTI_WRITER",
    ] {
        grant.volumes[1].access_mode = serde_json::from_value(mode.into()).unwrap();
        let json = serde_json::to_string(&grant).unwrap();
        assert_eq!(parse(&json).unwrap(), grant, "{mode}");
    }
}

#[test]
fn one_path_may_serve_two_containers_that_are_not_the_same() {
    let mut grant = grant();
    grant.mounts.push(mount(Some("side"), "vol1", "/other"));
    check(&grant).unwrap();
}

#[test]
fn a_grant_counts_only_on_its_node_and_for_its_pod() {
    let mut grant = grant();
    let node: NodeName = "node-a".parse().unwrap();
    let sandbox = |namespace: &str, name: &str| SandboxView {
        namespace: namespace.into(),
        name: name.into(),
        ..SandboxView::default()
    };
    let refused = |grant: &Grant, node: &str, sandbox: &SandboxView, word: &str| {
        let error = check_presented(grant, &node.parse().unwrap(), sandbox).unwrap_err();
        assert_eq!(error.kind(), Kind::PermissionDenied);
        assert!(error.to_string().contains(word), "{error}");
    };
    let pod = sandbox("agents", "pod-1");
    check_presented(&grant, &node, &pod).unwrap();
    refused(&grant, "node-b", &pod, "is for node node-a");
    refused(
        &grant,
        "node-a",
        &sandbox("default", "pod-1"),
        "\"default\"",
    );

    let audience = |pod: &str| Audience::Pod {
        namespace: label("agents"),
        pod: Some(pod.into()),
    };
    grant.audience = audience("pod-1");
    check_presented(&grant, &node, &pod).unwrap();
    grant.audience = audience("pod-2");
    refused(&grant, "node-a", &pod, "\"pod-2\"");
    grant.audience = Audience::Host {
        node: node.clone(),
        container: Some("pod-1".into()),
    };
    refused(&grant, "node-a", &pod, "host");
}

#[test]
fn a_scope_begins_until_the_time_that_the_grant_says() {
    let mut grant = grant();
    let end: Timestamp = "2030-01-31T12:00:00Z".parse().unwrap();
    let at = |seconds: i64| Timestamp::from_second(end.as_second() + seconds).unwrap();
    check_time(&grant, at(1_000_000)).unwrap();
    grant.not_after = Some(end);
    check_time(&grant, at(-1)).unwrap();
    check_time(&grant, end).unwrap();
    let late = check_time(&grant, at(1)).unwrap_err();
    assert_eq!(late.kind(), Kind::FailedPrecondition);
    assert!(late.to_string().contains("2030-01-31T12:00:00Z"), "{late}");
}
