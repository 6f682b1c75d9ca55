// SPDX-License-Identifier: Apache-2.0

use proptest::{
    collection::{btree_map, btree_set, vec},
    prelude::*,
    sample::subsequence,
};

use super::*;
use crate::model::SecretUse;

fn refusal(yaml: &str) -> String {
    parse(yaml).unwrap_err().to_string()
}

#[test]
fn a_short_class_gets_the_defaults_of_kubernetes() {
    let class = parse("kind: StorageClass\nmetadata: {name: a.b}\nprovisioner: d.example").unwrap();
    assert_eq!(
        class,
        StorageClass {
            name: "a.b".into(),
            provisioner: "d.example".parse().unwrap(),
            parameters: BTreeMap::new(),
            fs_type: String::new(),
            selinux_context: String::new(),
            secret_refs: SecretRefs::new(),
            mount_options: Vec::new(),
            reclaim_policy: ReclaimPolicy::Delete,
            allow_volume_expansion: false,
            volume_binding_mode: VolumeBindingMode::Immediate,
            allowed_topologies: Vec::new(),
        }
    );
}

#[test]
fn an_selinux_context_is_a_parameter_of_our_own_that_no_driver_is_given() {
    let class = |parameters: &str| {
        format!(
            "kind: StorageClass\nmetadata: {{name: a}}\nprovisioner: d\nparameters: {{type: ssd, {parameters}}}"
        )
    };
    let good = "actor-volumes.dev/selinux-mount-context: 'system_u:object_r:container_file_t:s0'";
    let read = parse(&class(good)).unwrap();
    assert_eq!(
        read.selinux_context,
        "system_u:object_r:container_file_t:s0"
    );
    assert_eq!(read.parameters, [("type".into(), "ssd".into())].into());
    for (bad, why) in [
        (
            "actor-volumes.dev/selinux-mount-context: 'u:r:t:s0\",suid'",
            "is not an SELinux context",
        ),
        ("actor-volumes.dev/selinux: x", "is not known"),
    ] {
        let said = refusal(&class(bad));
        assert!(said.contains(why) && said.contains("parameters["), "{said}");
    }
    let beside = class(good) + "\nmountOptions: ['noatime,context=x']";
    assert!(refusal(&beside).starts_with("mountOptions: holds an SELinux context"));
}

#[test]
fn a_full_class_keeps_all_and_takes_out_the_file_system_type() {
    let class = parse(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: fast
  annotations: {storageclass.kubernetes.io/is-default-class: 'true'}
provisioner: hostpath.csi.k8s.io
parameters: {type: ssd, csi.storage.k8s.io/fstype: xfs}
mountOptions: [noatime]
reclaimPolicy: Retain
allowVolumeExpansion: true
volumeBindingMode: WaitForFirstConsumer
allowedTopologies: []
",
    )
    .unwrap();
    assert_eq!(class.fs_type, "xfs");
    assert_eq!(class.parameters, [("type".into(), "ssd".into())].into());
    assert_eq!(class.mount_options, ["noatime"]);
    assert_eq!(class.reclaim_policy, ReclaimPolicy::Retain);
    assert!(class.allow_volume_expansion);
    assert_eq!(
        class.volume_binding_mode,
        VolumeBindingMode::WaitForFirstConsumer
    );
}

#[test]
fn all_problems_are_found_at_once() {
    let text = refusal(
        "
apiVersion: storage.k8s.io/v1beta1
kind: StorageClasses
metadata: {name: A}
provisioner: kubernetes.io/no-provisioner
reclaimPolcy: Retain
reclaimPolicy: Recycle
parameters:
  size: 3
  csi.storage.k8s.io/fstype: a b
  csi.storage.k8s.io/node-publish-secret-name: s
  csi.storage.k8s.io/node-stage-secret-name: ${pvc.name}
  csi.storage.k8s.io/node-stage-secret-namespace: storage
  csi.storage.k8s.io/pv/name: x
mountOptions: ['']
allowVolumeExpansion: yes
volumeBindingMode: Later
allowedTopologies: [{matchLabelExpressions: []}]
",
    );
    let paths: Vec<_> = text
        .lines()
        .map(|l| l.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "apiVersion",
            "kind",
            "reclaimPolcy",
            "metadata.name",
            "provisioner",
            "parameters.size",
            "parameters[\"csi.storage.k8s.io/fstype\"]",
            "parameters[\"csi.storage.k8s.io/node-stage-secret-name\"]",
            "parameters[\"csi.storage.k8s.io/node-publish-secret-namespace\"]",
            "parameters[\"csi.storage.k8s.io/pv/name\"]",
            "mountOptions",
            "reclaimPolicy",
            "allowVolumeExpansion",
            "volumeBindingMode",
            "allowedTopologies[0].matchLabelExpressions",
        ],
        "{text}"
    );
}

#[test]
fn secrets_are_named_by_use_and_kept_from_the_driver() {
    let class = parse(
        "
kind: StorageClass
metadata: {name: a}
provisioner: d
parameters:
  tier: fast
  csi.storage.k8s.io/provisioner-secret-name: creds
  csi.storage.k8s.io/provisioner-secret-namespace: storage
  csi.storage.k8s.io/node-stage-secret-name: stage.creds
  csi.storage.k8s.io/node-stage-secret-namespace: storage
",
    )
    .unwrap();
    assert_eq!(class.parameters, [("tier".into(), "fast".into())].into());
    let wanted = [
        (SecretUse::Provisioner, "storage/creds".parse().unwrap()),
        (SecretUse::NodeStage, "storage/stage.creds".parse().unwrap()),
    ];
    assert_eq!(class.secret_refs, wanted.into());
}

#[test]
fn a_term_with_many_values_stands_for_many_places() {
    let class = |terms: &str| {
        parse(&format!(
            "{{kind: StorageClass, metadata: {{name: a}}, provisioner: d, allowedTopologies: {terms}}}"
        ))
    };
    let places = |terms: &str| class(terms).unwrap().allowed_topologies;
    let place = |segments: &[(&str, &str)]| -> Topology {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        segments.iter().map(owned).collect()
    };
    assert_eq!(
        places(
            "[{matchLabelExpressions: [{key: x/zone, values: [z1, z2]}, {key: x/rack, values: [r1]}]},
              {matchLabelExpressions: [{key: x/zone, values: [z3]}]}]"
        ),
        [
            place(&[("x/zone", "z1"), ("x/rack", "r1")]),
            place(&[("x/zone", "z2"), ("x/rack", "r1")]),
            place(&[("x/zone", "z3")]),
        ]
    );
    for (bad, path) in [
        ("[{}]", "allowedTopologies[0].matchLabelExpressions"),
        (
            "[{matchLabelExpressions: [{key: k, values: []}]}]",
            "allowedTopologies[0].matchLabelExpressions[0].values",
        ),
        (
            "[{matchLabelExpressions: [{values: [v]}]}]",
            "allowedTopologies[0].matchLabelExpressions[0].key",
        ),
        (
            "[{matchLabelExpressions: [{key: k, values: [v]}, {key: K, values: [w]}]}]",
            "allowedTopologies[0].matchLabelExpressions[1].key",
        ),
    ] {
        let problems = class(bad).unwrap_err().to_string();
        assert!(problems.starts_with(&format!("{path}: ")), "{problems}");
    }
    let many: Vec<_> = (0..129).map(|n| format!("v{n}")).collect();
    let many = format!(
        "[{{matchLabelExpressions: [{{key: k, values: [{}]}}]}}]",
        many.join(", ")
    );
    assert!(class(&many).unwrap_err().to_string().contains("128 places"));
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        refusal("kind: StorageClass"),
        "metadata: is required and must be a mapping\nprovisioner: is required"
    );
    assert_eq!(refusal(""), "the document is empty");
    assert_eq!(refusal("[]"), "the document must be a mapping, not a list");
}

#[test]
fn parameters_beyond_the_limit_of_csi_are_refused() {
    let class = |len: usize| {
        format!(
            "{{kind: StorageClass, metadata: {{name: a}}, provisioner: d, parameters: {{k: {}}}}}",
            "x".repeat(len)
        )
    };
    assert!(parse(&class(4095)).is_ok());
    assert!(refusal(&class(4096)).starts_with("parameters: has 4097 bytes"));
}

proptest! {
    #[test]
    fn a_manifest_and_the_stored_form_read_back(
        name in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8})?",
        provisioner in "[a-zA-Z0-9]{1,8}(\\.[a-z0-9]{1,8})?",
        parameters in btree_map("\\PC{1,8}", any::<String>(), 0..4),
        fs_type in "[a-z0-9]{0,5}",
        mount_options in vec("[ -~]{1,8}", 0..3),
        (retain, expand, wait) in any::<(bool, bool, bool)>(),
        uses in subsequence(SecretUse::ALL.to_vec(), 0..=6),
        places in btree_set(btree_map("[a-z]{1,3}", any::<String>(), 1..3), 0..3),
    ) {
        let class = StorageClass {
            name,
            provisioner: provisioner.parse().unwrap(),
            parameters,
            fs_type,
            selinux_context: if expand { "u:r:t:s0:c1,c2" } else { "" }.into(),
            secret_refs: uses
                .into_iter()
                .map(|u| (u, format!("ns/{}", u.as_str()).parse().unwrap()))
                .collect(),
            mount_options,
            reclaim_policy: RECLAIM_POLICIES[usize::from(retain)].1,
            allow_volume_expansion: expand,
            volume_binding_mode: BINDING_MODES[usize::from(wait)].1,
            allowed_topologies: places.into_iter().collect(),
        };
        let manifest = class.to_manifest();
        let json = serde_json::to_string(&manifest).unwrap();
        prop_assert_eq!(parse(&json).map_err(|p| p.to_string()), Ok(class.clone()), "{}", json);
        let yaml = serde_saphyr::to_string(&manifest).unwrap();
        prop_assert_eq!(parse(&yaml).map_err(|p| p.to_string()), Ok(class.clone()), "{}", yaml);
        let stored = serde_json::to_vec(&class).unwrap();
        prop_assert_eq!(serde_json::from_slice::<StorageClass>(&stored).unwrap(), class);
    }

    #[test]
    fn no_text_makes_it_panic_and_every_refusal_has_a_reason(text in any::<String>(), near in "(kind|parameters|[a-z]|: |\n|  |[\\[\\]{},&*!|>'\"-]|StorageClass){0,40}") {
        for text in [text, near] {
            if let Err(problems) = parse(&text) {
                prop_assert!(!problems.is_empty(), "{:?}", text);
            }
        }
    }
}
