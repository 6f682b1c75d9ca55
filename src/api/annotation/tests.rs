// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::grant::tests::{any_grant, grant},
    error::Kind,
    model::Audience,
};

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn with_attachments(text: &str) -> BTreeMap<String, String> {
    annotations(&[(ACTOR, "agents/my-agent-1"), (ATTACHMENTS, text)])
}

fn refusal(annotations: &BTreeMap<String, String>) -> String {
    let error = read(annotations).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput, "{error}");
    error.to_string()
}

#[test]
fn annotations_of_others_are_not_about_us() {
    let others = annotations(&[
        ("actor-volumes.de/actor", "x"),
        ("actor-volumes.dev", "x"),
        ("actor-volumes.dev0/actor", "x"),
        ("io.kubernetes.cri.sandbox-id", "x"),
        (REQUIRED_PLUGINS, REQUIRED_PLUGINS_VALUE),
    ]);
    assert_eq!(read(&others).unwrap(), None);
    assert_eq!(read(&BTreeMap::new()).unwrap(), None);
}

#[test]
fn the_contract_is_read_as_it_is_documented() {
    let text = r#" {"version":1,"actor":{"namespace":"agents","name":"my-agent-1","uid":"u-1"},"node":"node-a",
        "audience":{"kind":"pod","namespace":"agents","pod":"p-1"},
        "volumes":[{"name":"vol1","uid":"v-1","generation":7,"driver":"hostpath.csi.k8s.io","volumeId":"id-1",
            "volumeMode":"Filesystem","fsType":"ext4","accessMode":"SINGLE_NODE_SINGLE_WRITER","mountFlags":[],
            "mountGroup":"","secretRefs":{},"volumeContext":{"a":"b"},"publishContext":{}}],
        "mounts":[{"container":"agent","volume":"vol1","mountPath":"/my-data","readOnly":false,"subPath":""}],
        "devices":[]} "#;
    let presented = read(&with_attachments(text)).unwrap().unwrap();
    assert_eq!(presented.actor.to_string(), "agents/my-agent-1");
    assert_eq!(presented.raw, text);
    let grant = presented.grant;
    assert_eq!(grant.generation().0, 7);
    assert_eq!(grant.volumes[0].volume_id, "id-1");
    assert_eq!(grant.volumes[0].volume_context["a"], "b");
    assert_eq!(grant.mounts[0].mount_path, "/my-data");
}

#[test]
fn what_is_written_is_the_documented_json_and_asks_for_the_plugin() {
    let written = write(&grant()).unwrap();
    assert_eq!(written[ACTOR], "agents/my-agent-1");
    assert_eq!(written[REQUIRED_PLUGINS], r#"["actor-volumes"]"#);
    assert_eq!(written.len(), 3);
    let value: Value = serde_json::from_str(&written[ATTACHMENTS]).unwrap();
    assert_eq!(
        value["volumes"][0],
        json!({"name": "vol1", "uid": "uid-vol1", "generation": 7, "driver": "hostpath.csi.k8s.io",
            "volumeId": "id/of#vol1", "volumeMode": "Filesystem", "fsType": "ext4",
            "accessMode": "SINGLE_NODE_SINGLE_WRITER", "mountFlags": ["noatime"],
            "volumeContext": {"tier": "gold"}, "publishContext": {}})
    );
    assert_eq!(
        value["audience"],
        json!({"kind": "pod", "namespace": "agents"})
    );
    assert_eq!(
        value["mounts"][1],
        json!({"container": "agent", "volume": "vol2", "mountPath": "/other", "readOnly": false})
    );
}

#[test]
fn a_grant_that_would_be_refused_is_not_written() {
    let mut bad = grant();
    bad.volumes[0].generation.0 = 0;
    assert!(write(&bad).unwrap_err().to_string().contains("generation"));
    let mut large = grant();
    for volume in &mut large.volumes {
        volume.volume_context = [("k".into(), "\u{1}".repeat(4095))].into();
        volume.publish_context = volume.volume_context.clone();
    }
    assert!(
        write(&large)
            .unwrap_err()
            .to_string()
            .contains("at most 65536")
    );
}

#[test]
fn a_key_of_ours_is_never_ignored() {
    let good = write(&grant()).unwrap();
    for (key, word) in [
        ("actor-volumes.dev/attachment", "is not known"),
        ("actor-volumes.dev/", "is not known"),
        ("actor-volumes.dev/zzz", "is not known"),
    ] {
        let mut more = good.clone();
        more.insert(key.into(), "x".into());
        assert!(refusal(&more).contains(word), "{key}");
        assert!(refusal(&annotations(&[(key, "x")])).contains(word), "{key}");
    }
    for key in [ACTOR, ATTACHMENTS] {
        let mut less = good.clone();
        less.remove(key);
        let text = refusal(&less);
        assert!(text.contains(key) && text.contains("missing"), "{text}");
    }
}

#[test]
fn the_actor_must_be_the_one_of_the_grant() {
    let mut other = write(&grant()).unwrap();
    other.insert(ACTOR.into(), "agents/my-agent-2".into());
    let text = refusal(&other);
    assert!(
        text.contains("my-agent-2") && text.contains("my-agent-1"),
        "{text}"
    );
    other.insert(ACTOR.into(), "my-agent-1".into());
    assert!(refusal(&other).contains("namespace/name"));
}

#[test]
fn attachments_that_are_too_long_are_not_read() {
    let good = &write(&grant()).unwrap()[ATTACHMENTS];
    let padded = |len: usize| format!("{}{good}", " ".repeat(len - good.len()));
    assert!(read(&with_attachments(&padded(65_536))).is_ok());
    assert!(refusal(&with_attachments(&padded(65_537))).contains("at most 65536"));
}

#[test]
fn json_is_read_strictly() {
    let good = write(&grant()).unwrap()[ATTACHMENTS].clone();
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        refusal(&with_attachments(&good.replacen(from, to, 1)))
    };
    for (from, to, word) in [
        ("}", "", "cannot read it as JSON"),
        ("\"version\":1", "\"version\":2", "version 2"),
        ("\"version\":1", "\"version\":1.0", "cannot read"),
        ("\"version\":1,", "", "missing field `version`"),
        (
            "\"version\":1",
            "\"version\":1,\"version\":1",
            "duplicate field",
        ),
        (
            "\"version\":1",
            "\"version\":1,\"x\":1",
            "unknown field `x`",
        ),
        (
            "\"uid\":\"a-1\"",
            "\"uid\":\"a-1\",\"x\":1",
            "unknown field `x`",
        ),
        (
            "\"kind\":\"pod\"",
            "\"kind\":\"pod\",\"x\":1",
            "unknown field `x`",
        ),
        (
            "\"kind\":\"pod\"",
            "\"kind\":\"pod\",\"kind\":\"pod\"",
            "duplicate field",
        ),
        ("\"kind\":\"pod\"", "\"kind\":\"vm\"", "\"vm\" is not known"),
        (
            "\"kind\":\"pod\"",
            "\"kind\":\"pod\",\"node\":\"a\"",
            "nothing else",
        ),
        (
            "\"generation\":7",
            "\"generation\":7,\"x\":1",
            "unknown field `x`",
        ),
        (
            "\"generation\":7",
            "\"generation\":7,\"generation\":8",
            "duplicate field",
        ),
        ("\"generation\":7", "\"generation\":-7", "cannot read"),
        (
            "\"container\":\"agent\"",
            "\"container\":\"agent\",\"x\":1",
            "unknown field `x`",
        ),
        (
            "{\"tier\":\"gold\"}",
            "{\"tier\":\"gold\",\"tier\":\"lead\"}",
            "twice in an object",
        ),
        (
            "\"volumeMode\":\"Filesystem\"",
            "\"volumeMode\":{\"Filesystem\":null}",
            "cannot read",
        ),
        (
            "\"accessMode\":\"SINGLE_NODE_SINGLE_WRITER\"",
            "\"accessMode\":\"RWO\"",
            "unknown variant",
        ),
        (
            "{\"namespace\":\"agents\",\"name\":\"my-agent-1\",\"uid\":\"a-1\"}",
            "[\"agents\",\"my-agent-1\",\"a-1\"]",
            "expected an object",
        ),
    ] {
        let text = replaced(from, to);
        assert!(text.contains(word), "{to}: {text}");
        assert!(text.contains(ATTACHMENTS), "{text}");
    }
    assert!(refusal(&with_attachments(&format!("{good}x"))).contains("trailing"));
    assert!(refusal(&with_attachments("")).contains("cannot read it as JSON"));
    assert!(refusal(&with_attachments(&"[".repeat(60_000))).contains("cannot read"));
}

#[test]
fn who_it_is_for_and_until_when_is_read_and_written_the_same() {
    let mut one = grant();
    one.audience = Audience::Host {
        node: one.node.clone(),
        container: Some("c-1".into()),
    };
    one.not_after = Some("2030-01-31T12:00:00Z".parse().unwrap());
    let one = one.with_contexts();
    let written = write(&one).unwrap();
    let text = &written[ATTACHMENTS];
    for part in [
        r#""audience":{"kind":"host","node":"node-a","container":"c-1"}"#,
        r#""notAfter":"2030-01-31T12:00:00Z""#,
        r#""selfContained":true"#,
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(read(&written).unwrap().unwrap().grant, one);
    let any = with_attachments(&text.replacen(",\"container\":\"c-1\"", "", 1));
    let any = read(&any).unwrap().unwrap().grant.audience;
    let node = one.node.clone();
    let container = None;
    assert_eq!(any, Audience::Host { node, container });
    for (from, to, word) in [
        ("\"c-1\"", "\"\"", "audience.container"),
        ("\"c-1\"", "\"../c\"", "audience.container"),
        ("\"c-1\"", "\"c\",\"namespace\":\"n\"", "nothing else"),
        (
            "\"kind\":\"host\",\"node\":\"node-a\"",
            "\"kind\":\"host\",\"node\":\"node-b\"",
            "not the node",
        ),
        ("2030-01-31T12:00:00Z", "2030-01-31", "RFC 3339"),
        ("2030-01-31T12:00:00Z", "soon", "RFC 3339"),
        ("\"host\"", "\"guest\"", "pod or host"),
    ] {
        assert!(text.contains(from), "{from}");
        let refused = refusal(&with_attachments(&text.replacen(from, to, 1)));
        assert!(refused.contains(word), "{to}: {refused}");
    }
}

#[test]
fn a_signature_is_found_and_nothing_is_read_before_it() {
    let signed = write_signed(&grant(), |text| format!("over {} bytes", text.len())).unwrap();
    let raw = find(&signed).unwrap().unwrap();
    assert_eq!(raw.attachments(), signed[ATTACHMENTS]);
    assert_eq!(raw.signature(), Some(signed[SIGNATURE].as_str()));
    assert_eq!(read(&signed).unwrap().unwrap().grant, grant());
    let nonsense = annotations(&[(ACTOR, "?"), (ATTACHMENTS, "{"), (SIGNATURE, "x")]);
    assert_eq!(find(&nonsense).unwrap().unwrap().attachments(), "{");
    let large = annotations(&[(ACTOR, "a/b"), (ATTACHMENTS, &" ".repeat(65_537))]);
    assert!(find(&large).err().unwrap().to_string().contains("65536"));
    let alone = annotations(&[(SIGNATURE, "x")]);
    assert!(refusal(&alone).contains("is missing"));
}

#[test]
fn a_sub_path_is_taken_and_one_that_leads_elsewhere_is_refused() {
    let good = write(&grant()).unwrap()[ATTACHMENTS].clone();
    let with = |sub_path: &str| {
        let field = format!("\"readOnly\":false,\"subPath\":{sub_path:?}");
        with_attachments(&good.replacen("\"readOnly\":false", &field, 1))
    };
    let sub_path = |text: &str| {
        let read = read(&with(text)).unwrap().unwrap();
        read.grant.mounts[0].sub_path.clone()
    };
    assert_eq!(sub_path("data/cache"), Some("data/cache".parse().unwrap()));
    assert_eq!(sub_path(""), None);
    for bad in ["..", "a/../../b", "/etc", "a//b", "a/"] {
        let text = refusal(&with(bad));
        assert!(text.contains("subPath: it must not"), "{bad}: {text}");
    }
    let mut nested = grant();
    nested.mounts[0].sub_path = Some("data/cache".parse().unwrap());
    let read = read(&write(&nested).unwrap()).unwrap().unwrap();
    assert_eq!(read.grant, nested);
}

#[test]
fn no_message_and_no_debug_text_quotes_a_context_or_a_flag() {
    let secret = "314159265";
    let mut rich = grant();
    rich.volumes[0].volume_context = [("token".into(), secret.into())].into();
    rich.volumes[0].mount_flags = vec![format!("password={secret}")];
    let written = write(&rich).unwrap();
    let presented = read(&written).unwrap().unwrap();
    assert!(!format!("{presented:?}").contains(secret));

    let text = &written[ATTACHMENTS];
    for broken in [
        text.replace(&format!("\"{secret}\""), secret),
        text.replace(&format!("\"password={secret}\""), secret),
        text.replace(
            &format!("\"password={secret}\""),
            &format!("\"{secret}\\n\""),
        ),
        text.replace("\"token\"", &format!("\"token\":\"{secret}\",\"token\"")),
    ] {
        assert_ne!(&broken, text);
        let message = refusal(&with_attachments(&broken));
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn a_refusal_is_short_whatever_it_quotes() {
    let long = "x".repeat(60_000);
    let good = write(&grant()).unwrap()[ATTACHMENTS].clone();
    let attachments = with_attachments(&good.replacen("\"vol1\"", &format!("\"{long}\""), 1));
    for bad in [
        attachments,
        annotations(&[(&format!("{PREFIX}{long}"), "")]),
        annotations(&[(ACTOR, &long), (ATTACHMENTS, &good)]),
    ] {
        assert!(refusal(&bad).chars().count() <= MAX_MESSAGE_CHARS + 1);
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(grant in any_grant()) {
        let presented = read(&write(&grant).unwrap()).unwrap().unwrap();
        prop_assert_eq!(presented.actor, grant.actor_ref());
        prop_assert_eq!(presented.grant, grant);
    }

    #[test]
    fn no_text_makes_it_panic(
        text in any::<String>(),
        json in "[\\[\\]{}:,\"0-9a-z ]{0,60}",
        cut in any::<prop::sample::Index>(),
        insert in any::<String>(),
        key in "actor-volumes\\.dev/\\PC{0,6}",
    ) {
        let good = write(&grant()).unwrap()[ATTACHMENTS].clone();
        let cut = cut.index(good.len());
        let broken = format!("{}{insert}{}", &good[..cut], &good[cut..]);
        for text in [text, json, broken] {
            let mut all = with_attachments(&text);
            let _ = read(&all);
            all.insert(ACTOR.into(), text.clone());
            let _ = read(&all);
            all.insert(key.clone(), text);
            let _ = read(&all);
        }
    }
}
