// SPDX-License-Identifier: Apache-2.0

use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use super::*;
use crate::api::rule;

/// The template of the README, as a user brings it.
const EXAMPLE: &str = "
kind: ActorTemplate
metadata:
  name: my-agent-template
spec:
  containers:
  - image: my-agent-image:v1.2.3
    volumeMounts:
    - name: vol1
      mountPath: /my-data
  volumes:
  - name: vol1
    externalVolumeTemplate:
      capacity: 5Gi
      storageClassName: storage-pool1
";

fn label(text: &str) -> DnsLabel {
    text.parse().unwrap()
}

#[test]
fn the_plain_template_gets_the_defaults() {
    let template = parse(EXAMPLE).unwrap();
    assert_eq!(
        template,
        Template {
            name: label("my-agent-template"),
            containers: vec![TemplateContainer {
                name: None,
                volume_mounts: vec![TemplateMount {
                    volume: label("vol1"),
                    mount_path: "/my-data".into(),
                    read_only: false,
                    sub_path: None,
                }],
                volume_devices: Vec::new(),
            }],
            volumes: vec![TemplateVolume {
                name: label("vol1"),
                capacity: "5Gi".parse().unwrap(),
                storage_class: "storage-pool1".into(),
                access_mode: AccessMode::SingleNodeSingleWriter,
                volume_mode: VolumeMode::Filesystem,
                fs_group: None,
                fs_type: String::new(),
                selinux_context: String::new(),
                mount_options: Vec::new(),
                reclaim_policy: None,
            }],
        }
    );
}

#[test]
fn a_capacity_may_be_a_number_and_keeps_its_digits() {
    for (written, bytes) in [
        ("5368709120", 5 << 30),
        ("1e9", 1_000_000_000),
        ("1.00000000000000000001", 2),
        ("9223372036854775807", i64::MAX as u64),
    ] {
        let template = parse(&EXAMPLE.replace("5Gi", written)).unwrap();
        assert_eq!(template.volumes[0].capacity.bytes(), bytes, "{written}");
    }
}

#[test]
fn the_mounts_of_a_nameless_container_go_to_all_or_to_the_one_named() {
    let template = parse(EXAMPLE).unwrap();
    assert_eq!(template.mounts(None).unwrap()[0].container, None);
    let named = template.mounts(Some(&label("warm"))).unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].container, Some(label("warm")));
    assert_eq!(named[0].mount_path, "/my-data");
}

#[test]
fn named_containers_keep_their_mounts_whoever_is_named_at_resume() {
    let template = parse(
        &EXAMPLE
            .replace("- image: my-agent-image:v1.2.3", "- name: agent")
            .replace(
                "  volumes:",
                "  - name: side\n    volumeMounts: [{name: vol1, mountPath: /d, readOnly: true}]\n  volumes:",
            ),
    )
    .unwrap();
    let mounts = template.mounts(None).unwrap();
    let containers: Vec<_> = mounts.iter().map(|m| m.container.clone()).collect();
    assert_eq!(containers, [Some(label("agent")), Some(label("side"))]);
    assert_eq!([false, true], [mounts[0].read_only, mounts[1].read_only]);
    assert_eq!(template.mounts(Some(&label("side"))).unwrap(), mounts);
    let error = template.mounts(Some(&label("other"))).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::InvalidInput);
    assert!(error.to_string().contains("agent, side"), "{error}");
}

#[test]
fn a_block_volume_goes_to_the_same_containers_as_a_device() {
    let template = parse(
        &EXAMPLE
            .replace(
                "volumeMounts:\n    - name: vol1\n      mountPath: /my-data",
                "volumeDevices: [{name: vol1, devicePath: /dev/xvda}]",
            )
            .replace("capacity: 5Gi", "capacity: 5Gi\n      volumeMode: Block"),
    )
    .unwrap();
    assert!(template.mounts(None).unwrap().is_empty());
    let devices = template.devices(Some(&label("warm"))).unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].container, Some(label("warm")));
    assert_eq!(devices[0].device_path, "/dev/xvda");
    assert_eq!(template.devices(None).unwrap()[0].container, None);
}

#[test]
fn a_volume_that_nobody_may_write_is_mounted_read_only() {
    let read_only = EXAMPLE.replace(
        "capacity: 5Gi",
        "capacity: 5Gi\n      accessMode: ReadOnlyMany",
    );
    let template = parse(&read_only).unwrap();
    assert!(template.mounts(None).unwrap()[0].read_only);
    let asked = read_only.replace("/my-data", "/my-data\n      readOnly: false");
    let text = parse(&asked).unwrap_err().to_string();
    assert!(
        text.starts_with(
            "spec.containers[0].volumeMounts[0].readOnly: volume \"vol1\" is ReadOnlyMany"
        ),
        "{text}"
    );
}

#[test]
fn a_template_has_the_limits_of_a_grant() {
    let with = |volumes: usize, mounts: usize| {
        let declared: Vec<_> = (0..volumes)
            .map(|n| {
                serde_json::json!({"name": format!("v{n}"), "externalVolumeTemplate":
                {"capacity": "1Gi", "storageClassName": "c"}})
            })
            .collect();
        let mounted: Vec<_> = (0..mounts)
            .map(|n| {
                serde_json::json!({"name": format!("v{}", n % volumes), "mountPath": format!("/m{n}")})
            })
            .collect();
        parse(
            &serde_json::json!({"kind": "ActorTemplate", "metadata": {"name": "t"},
            "spec": {"containers": [{"volumeMounts": mounted}], "volumes": declared}})
            .to_string(),
        )
    };
    assert!(with(64, 256).is_ok());
    let text = with(65, 257).unwrap_err().to_string();
    assert_eq!(
        text,
        "spec.volumes: has 65 volumes: at most 64\n\
         spec.containers: have 257 volumeMounts and volumeDevices together: at most 256"
    );
}

/// Names that YAML could take for something else are among them.
fn any_label() -> impl Strategy<Value = DnsLabel> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?",
        prop::sample::select(vec![
            "1e3", "no", "true", "null", "0x1", "1", "0o7", "y", "on"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_map(|text| label(&text))
}

fn any_volume(name: DnsLabel) -> impl Strategy<Value = TemplateVolume> {
    (
        1..=i64::MAX as u64,
        vec(any_label(), 1..3),
        (0..3usize, option::of(1..=rule::MAX_GROUP), any::<bool>()),
        "[a-z0-9]{0,5}",
        vec("[ -~]{1,8}", 0..3),
        prop::sample::select(vec![
            None,
            Some(ReclaimPolicy::Delete),
            Some(ReclaimPolicy::Retain),
        ]),
    )
        .prop_map(
            move |(bytes, class, (mode, group, block), fs, options, policy)| {
                let mode = if mode == 2 { 3 } else { mode };
                let class: Vec<_> = class.iter().map(DnsLabel::as_str).collect();
                TemplateVolume {
                    name: name.clone(),
                    capacity: Quantity::from_bytes(bytes).unwrap(),
                    storage_class: class.join("."),
                    access_mode: ACCESS_MODES[mode].1,
                    volume_mode: VOLUME_MODES[usize::from(block)].1,
                    fs_group: group.filter(|_| !block),
                    fs_type: if block { String::new() } else { fs },
                    selinux_context: if block || mode != 3 { "" } else { "u:r:t:s0" }.into(),
                    mount_options: if block { Vec::new() } else { options },
                    reclaim_policy: policy,
                }
            },
        )
}

fn any_template() -> impl Strategy<Value = Template> {
    let names = prop::collection::btree_set(any_label(), 1..5);
    let shape = (names, option::of(any_label()), any_label(), any::<bool>());
    shape.prop_flat_map(|(names, container, name, second)| {
        let names: Vec<_> = names.into_iter().collect();
        let volumes: Vec<_> = names.iter().cloned().map(any_volume).collect();
        let again = subsequence(names.clone(), 0..=names.len());
        (
            volumes,
            again,
            vec(any::<bool>(), names.len()),
            "/[ -.0-~]{1,9}[a-z]",
        )
            .prop_map(move |(volumes, again, read_only, path)| {
                let mount = |volume: &DnsLabel, index: usize| TemplateMount {
                    volume: volume.clone(),
                    mount_path: format!("{path}{index}"),
                    read_only: read_only[index],
                    sub_path: read_only[index].then(|| name.as_str().parse().unwrap()),
                };
                let is_block = |name: &DnsLabel| {
                    let volume = volumes.iter().find(|v| &v.name == name);
                    volume.is_some_and(|v| v.volume_mode == VolumeMode::Block)
                };
                let uses = |names: &[DnsLabel]| {
                    let (mut mounts, mut devices) = (Vec::new(), Vec::new());
                    for (index, name) in names.iter().enumerate() {
                        if is_block(name) {
                            devices.push(TemplateDevice {
                                volume: name.clone(),
                                device_path: format!("{path}{index}"),
                            });
                        } else {
                            mounts.push(mount(name, index));
                        }
                    }
                    (mounts, devices)
                };
                let (volume_mounts, volume_devices) = uses(&names);
                let mut containers = vec![TemplateContainer {
                    name: container.clone(),
                    volume_mounts,
                    volume_devices,
                }];
                if second && container.as_ref().is_some_and(|c| c.as_str() != "side") {
                    let (volume_mounts, volume_devices) = uses(&again[..again.len().min(1)]);
                    containers.push(TemplateContainer {
                        name: Some(label("side")),
                        volume_mounts,
                        volume_devices,
                    });
                }
                Template {
                    name: name.clone(),
                    containers,
                    volumes,
                }
            })
    })
}

proptest! {
    #[test]
    fn a_manifest_reads_back_as_json_and_as_yaml(template in any_template()) {
        let manifest = template.to_manifest();
        let json = serde_json::to_string_pretty(&manifest).unwrap();
        prop_assert_eq!(parse(&json).map_err(|p| p.to_string()), Ok(template.clone()), "{}", json);
        let yaml = serde_saphyr::to_string(&manifest).unwrap();
        prop_assert_eq!(parse(&yaml).map_err(|p| p.to_string()), Ok(template), "{}", yaml);
    }

    #[test]
    fn the_stored_form_reads_back(template in any_template()) {
        let stored = serde_json::to_vec(&template).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Template>(&stored).unwrap(), template);
    }

    #[test]
    fn no_text_makes_it_panic_and_every_refusal_has_a_reason(
        text in any::<String>(),
        near in "(kind|spec|metadata|volumes|name|[a-z]|- |: |\n|  |[\\[\\]{},&*!|>'\"#%@~?-]|<<|ActorTemplate){0,40}",
        cut in 0..EXAMPLE.len(),
        insert in any::<String>(),
    ) {
        let broken = format!("{}{insert}{}", &EXAMPLE[..cut], &EXAMPLE[cut..]);
        for text in [text, near, broken] {
            if let Err(problems) = parse(&text) {
                prop_assert!(!problems.is_empty(), "{:?}", text);
            }
        }
    }
}

#[test]
fn an_selinux_context_is_checked_and_is_of_file_systems() {
    let template = |fields: &str, use_: &str| {
        format!(
            "kind: ActorTemplate\nmetadata: {{name: t}}\nspec:\n  containers:\n  - {use_}\n  volumes:\n  - name: a\n    externalVolumeTemplate: {{capacity: 1Mi, storageClassName: s, {fields}}}\n"
        )
    };
    let files = "volumeMounts: [{name: a, mountPath: /a}]";
    let context = "seLinuxMountContext: 'system_u:object_r:container_file_t:s0:c1,c2'";
    let read = parse(&template(context, files)).unwrap();
    assert_eq!(
        read.volumes[0].selinux_context,
        "system_u:object_r:container_file_t:s0:c1,c2"
    );
    let refused =
        |fields: &str, use_: &str| parse(&template(fields, use_)).unwrap_err().to_string();
    let injected = refused("seLinuxMountContext: 'u:r:t:s0\",dev,suid'", files);
    assert!(injected.contains("is not an SELinux context"), "{injected}");
    let twice = refused(&format!("{context}, mountOptions: ['context=x']"), files);
    assert!(twice.contains("beside the one"), "{twice}");
    let block = refused(
        &format!("{context}, volumeMode: Block"),
        "volumeDevices: [{name: a, devicePath: /dev/a}]",
    );
    assert!(block.contains("is of file systems"), "{block}");
}
