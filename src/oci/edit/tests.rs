// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

const ROOT: &str = "/m";

const GRANT: &str = r#"{"version":1,"actor":{"namespace":"agents","name":"a","uid":"u1"},"node":"n","audience":{"kind":"host","node":"n"},"volumes":[{"name":"raw","uid":"v1","generation":1,"driver":"d.test","volumeId":"x","volumeMode":"Block","accessMode":"SINGLE_NODE_SINGLE_WRITER"}],"mounts":[],"devices":[{"volume":"raw","devicePath":"/dev/xvda"}]}"#;

fn mount(destination: &str, volume: &str) -> GivenMount {
    GivenMount {
        destination: destination.into(),
        source: format!("/m/{volume}"),
        options: ["rbind", "rprivate", "rw"].map(String::from).into(),
        volume: volume.into(),
    }
}

fn given(destinations: &[&str]) -> Given {
    let name = |d: &&str| mount(d, &d.trim_start_matches('/').replace('/', "-"));
    Given {
        mounts: destinations.iter().map(name).collect(),
        devices: Vec::new(),
        mount_root: ROOT.into(),
    }
}

fn with_device(read_only: bool) -> Given {
    Given {
        devices: vec![GivenDevice {
            path: "/dev/xvda".into(),
            major: 7,
            minor: 3,
            read_only,
        }],
        ..given(&[])
    }
}

fn injected(config: &str, given: &Given) -> String {
    String::from_utf8(inject(config.as_bytes(), given).unwrap()).unwrap()
}

fn released(config: &str) -> String {
    String::from_utf8(release(config.as_bytes(), Path::new(ROOT)).unwrap()).unwrap()
}

fn refused(config: &str, given: &Given) -> String {
    inject(config.as_bytes(), given).unwrap_err().full_message()
}

#[test]
fn only_what_is_given_is_new_and_every_other_byte_stays() {
    let config = "{\n  \"ociVersion\" : \"9.9\",\n  \"x\": 1.50E+400,\n  \"mounts\": [ {\"destination\":\"/proc\",\"type\":\"proc\", \"new\":0.10 } ],\n  \"process\":{\"args\":[\"\\u0061\"]}}\n";
    let with = injected(config, &given(&["/a"]));
    let ours = r#",{"destination":"/a","options":["rbind","rprivate","rw"],"source":"/m/a","type":"bind"}"#;
    assert_eq!(with, config.replace("0.10 }", &format!("0.10 }}{ours}")));
    assert_eq!(injected(&with, &given(&["/a"])), with);
    assert_eq!(released(&with), config);
    assert_eq!(injected(config, &given(&[])), config);
    assert_eq!(released(config), config);
}

#[test]
fn a_specification_without_mounts_has_them_then() {
    for config in ["{}", r#"{"mounts":null}"#, r#"{"mounts":[]}"#] {
        let with = injected(config, &given(&["/a"]));
        let read = crate::oci::parse(with.as_bytes()).unwrap();
        assert_eq!(read.spec.mounts.len(), 1, "{with}");
        assert!(!released(&with).contains("/m/a"));
    }
}

#[test]
fn a_mount_comes_after_those_above_it_and_before_those_below_it() {
    let all = |config: &str, given: &Given| {
        let read = crate::oci::parse(injected(config, given).as_bytes()).unwrap();
        let destinations = read.spec.mounts.into_iter().map(|m| m.destination);
        destinations.collect::<Vec<_>>().join(" ")
    };
    let spec = |destinations: &[&str]| {
        let mounts = destinations.iter().map(|d| json!({"destination": d}));
        let mounts: Vec<_> = mounts.collect();
        json!({ "mounts": mounts }).to_string()
    };
    let nested = given(&["/a", "/a/b"]);
    for (before, after) in [
        (&["/", "/proc"][..], "/ /proc /a /a/b"),
        (&["/", "/a/b/c/", "/x"], "/ /a /a/b /a/b/c/ /x"),
        (&["/ab", "/a/x/../y"], "/ab /a /a/x/../y /a/b"),
    ] {
        assert_eq!(all(&spec(before), &nested), after);
    }
    for in_the_way in [&["/a/"][..], &["/x/../a"], &["/a/c", "/"]] {
        let why = refused(&spec(in_the_way), &nested);
        assert!(why.contains("is in its way"), "{why}");
    }
}

#[test]
fn a_device_comes_with_its_rule_and_goes_with_it() {
    let config = json!({
        "annotations": {annotation::ACTOR: "agents/a", annotation::ATTACHMENTS: GRANT},
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 9}},
            "devices": [{"path": "/dev/other", "type": "c", "major": 1, "minor": 3}],
        },
    })
    .to_string();
    for read_only in [false, true] {
        let with = injected(&config, &with_device(read_only));
        assert_eq!(injected(&with, &with_device(read_only)), with);
        let read: Value = serde_json::from_str(&with).unwrap();
        let (mode, access) = if read_only {
            (0o440, "r")
        } else {
            (0o660, "rw")
        };
        assert_eq!(
            read["linux"]["devices"][1],
            json!({"path": "/dev/xvda", "type": "b", "major": 7, "minor": 3, "fileMode": mode})
        );
        assert_eq!(
            read["linux"]["resources"]["devices"][1],
            json!({"allow": true, "type": "b", "major": 7, "minor": 3, "access": access})
        );
        assert_eq!(released(&with), config);
        // Other numbers after the next publication.
        let other = injected(&with, &with_device(!read_only));
        assert_eq!(released(&other), config);
    }
    let bare = injected(
        &config.replace("\"linux\"", "\"other\""),
        &with_device(false),
    );
    assert!(bare.contains("xvda") && !released(&bare).contains("\"/dev/xvda\",\"type\""));
}

#[test]
fn a_device_that_is_the_containers_own_stays() {
    let config = |device: Value, rules: Value| {
        json!({
            "annotations": {annotation::ACTOR: "agents/a", annotation::ATTACHMENTS: GRANT},
            "linux": {"devices": [device], "resources": {"devices": rules}},
        })
        .to_string()
    };
    let rule = with_device(false).devices[0].rule();
    let written = with_device(false).devices[0].written();
    let mut more = written.clone();
    more["uid"] = json!(0);
    let mut elsewhere = written.clone();
    elsewhere["path"] = json!("/dev/xvdb");
    for (own, rules) in [
        (more, json!([rule])),
        (elsewhere, json!([rule])),
        (written, json!([])),
    ] {
        let config = config(own.clone(), rules);
        assert_eq!(released(&config), config);
        if own["path"] == "/dev/xvda" {
            let why = refused(&config, &with_device(false));
            assert!(why.contains("own device"), "{why}");
        }
    }
}

#[test]
fn the_user_namespace_is_found() {
    let found = |namespaces: &str| {
        let config = format!(r#"{{"linux":{{"namespaces":{namespaces}}}}}"#);
        user_namespace(config.as_bytes()).unwrap()
    };
    assert_eq!(found(r#"[{"type":"pid"}]"#), None);
    assert_eq!(found("null"), None);
    assert_eq!(found(r#"[{"type":"user"}]"#), Some(String::new()));
    let joined = found(r#"[{"type":"pid"},{"type":"user","path":"/p"}]"#);
    assert_eq!(joined.as_deref(), Some("/p"));
    assert_eq!(user_namespace(b"{}").unwrap(), None);
}

#[test]
fn what_is_ambiguous_is_not_changed() {
    for config in [
        r#"{"mounts":[],"mounts":[]}"#,
        r#"{"Mounts":[]}"#,
        r#"{"mounts":{}}"#,
        r#"{"mounts":[{"destination":"/a","destination":"/b"}]}"#,
        "",
        "[]",
    ] {
        let done = inject(config.as_bytes(), &given(&["/z"]));
        assert!(done.is_err(), "{config}");
    }
    assert!(inject(b"\xff{}", &given(&["/z"])).is_err());
    let twice = r#"{"linux":{"devices":[],"devices":[]}}"#;
    assert!(inject(twice.as_bytes(), &with_device(false)).is_err());
}

/// Any JSON.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zé\"\\\\]{0,4}", inner, 0..4)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

/// A specification, with anything beside what is known.
fn config() -> impl Strategy<Value = Value> {
    let other = proptest::collection::btree_map("[a-z\"]{1,5}", json(), 0..4);
    let destinations = proptest::collection::vec("(/[pq]){0,2}", 0..4);
    let annotations = proptest::option::of(proptest::collection::btree_map(
        "[a-zA-Z]{1,2}",
        "[a-z]{0,3}",
        0..3,
    ));
    (other, destinations, annotations, any::<u8>()).prop_map(
        |(mut other, destinations, annotations, bits)| {
            let noise = other.clone();
            if bits & 1 == 0 {
                let mount = |d: &String| json!({"destination": d, "source": "/m", "x": noise});
                let mounts: Vec<_> = destinations.iter().map(mount).collect();
                other.insert("mounts".into(), mounts.into());
            }
            if bits & 2 == 0 {
                let rules = json!([{"allow": false, "x": noise}]);
                let linux = match bits & 12 {
                    0 => json!({"x": noise, "resources": {"devices": rules, "y": 1}}),
                    4 => json!({"devices": null, "resources": {"z": noise}}),
                    8 => json!({"devices": [{"path": "/dev/null", "type": "c"}]}),
                    _ => Value::Null,
                };
                other.insert("linux".into(), linux);
            }
            let grant = (bits & 16 == 0).then_some([
                (annotation::ACTOR, "agents/a"),
                (annotation::ATTACHMENTS, GRANT),
            ]);
            let mut all = annotations.unwrap_or_default();
            all.extend(
                grant
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.into(), v.into())),
            );
            other.insert("annotations".into(), json!(all));
            Value::from(serde_json::Map::from_iter(other))
        },
    )
}

/// Without what is empty where we write: that means the same.
fn meaning(config: &str) -> Value {
    let is_empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(array) => array.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    let drop = |object: &mut Value, key: &str| {
        if object.get(key).is_some_and(is_empty)
            && let Some(object) = object.as_object_mut()
        {
            object.remove(key);
        }
    };
    let mut value: Value = serde_json::from_str(config).unwrap();
    if let Some(linux) = value.get_mut("linux") {
        if let Some(resources) = linux.get_mut("resources") {
            drop(resources, "devices");
        }
        drop(linux, "devices");
        drop(linux, "resources");
    }
    for key in ["mounts", "linux", "annotations"] {
        drop(&mut value, key);
    }
    value
}

proptest! {
    #[test]
    fn what_was_given_and_released_leaves_the_same(
        config in config(), pretty in any::<bool>(), device in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&config).unwrap() } else { config.to_string() };
        let has_grant = config["annotations"][annotation::ACTOR] == "agents/a";
        let mut given = given(&["/p/q/r", "/v"]);
        if device && has_grant {
            given.devices = with_device(false).devices;
        }
        let with = injected(&text, &given);
        let read = crate::oci::parse(with.as_bytes()).unwrap();
        let count = config["mounts"].as_array().map_or(0, Vec::len);
        prop_assert_eq!(read.spec.mounts.len(), count + 2);
        prop_assert_eq!(injected(&with, &given), with.clone());
        prop_assert_eq!(meaning(&released(&with)), meaning(&text));
        prop_assert_eq!(released(&text), text);
    }

    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = inject(&bytes, &given(&["/a"]));
        let _ = release(&bytes, Path::new(ROOT));
        let _ = user_namespace(&bytes);
    }
}
