// SPDX-License-Identifier: Apache-2.0
//! Whoever may create a pod presents what he likes: forged, changed, copied and old
//! grants are refused, and nothing changes by them.

use std::{collections::BTreeMap, fs};

use actor_volumes::keys::{KeyDir, PrivateKey};
use testkit::cri::{Annotations, ContainerSpec, PodSpec, Refusal};

use super::{SHARED, create, doctor, prepare};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{NAMESPACE, Node, SOON, is_retryable},
};

const ATTACHMENTS: &str = "actor-volumes.dev/attachments";
const SIGNATURE: &str = "actor-volumes.dev/signature";

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Testkit, run);
    vec![
        case(
            "a_grant_that_is_forged_changed_or_for_somebody_else_is_refused_and_changes_nothing",
            a_grant_that_is_forged_changed_or_for_somebody_else_is_refused_and_changes_nothing,
        )
        .everywhere(),
        case(
            "a_copy_of_a_grant_is_of_no_use_while_it_is_used_nor_when_it_is_over",
            a_copy_of_a_grant_is_of_no_use_while_it_is_used_nor_when_it_is_over,
        ),
        case(
            "the_key_is_exchanged_while_everything_runs",
            the_key_is_exchanged_while_everything_runs,
        ),
    ]
}

/// What must not change: mounts, records, and calls that would change a mount.
#[derive(Debug, PartialEq)]
struct Seen {
    mounts: Vec<String>,
    records: BTreeMap<String, Vec<u8>>,
    calls: [usize; 4],
}

impl Seen {
    fn of(node: &Node) -> Self {
        let records = fs::read_dir(node.dir.join("av/records")).expect("it is there");
        let read = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("it can be read"))
        };
        Self {
            mounts: node.held_mounts(),
            records: records.flatten().map(read).collect(),
            calls: [
                "NodeStageVolume",
                "NodePublishVolume",
                "NodeUnpublishVolume",
                "NodeUnstageVolume",
            ]
            .map(|call| node.driver_calls(call)),
        }
    }
}

/// The container of a new pod is refused.
fn refusal(node: &mut Node, namespace: &str, annotations: &Annotations, what: &str) -> Refusal {
    let mut spec = node.pod_spec(annotations);
    spec.namespace = namespace.to_owned();
    let pod = node.cri.run_pod(&spec).expect("the sandbox itself runs");
    let refused = node
        .cri
        .create_container(&pod, &ContainerSpec::idle("agent"))
        .expect_err(what);
    node.remove_pod(&pod);
    refused
}

fn a_grant_that_is_forged_changed_or_for_somebody_else_is_refused_and_changes_nothing(
    node: &mut Node,
) {
    prepare(node);
    for actor in ["a", "b", "late"] {
        create(node, actor, SHARED);
    }
    let good = node.resume("a");
    let (pod, agent) = node.run_agent(&good);
    node.sh(&agent, "echo kept > /my-data/f && sync");
    let of_b = node.resume("b");
    let late = node.resume_with("late", &["--not-after", "2020-01-01T00:00:00Z"]);

    let key = KeyDir::new(node.dir.join("av/keys"))
        .signing()
        .expect("the first start made one");
    let stranger = PrivateKey::generate().expect("there is randomness");
    let with = |key: &str, value: &str| {
        let mut changed = good.clone();
        changed.insert(key.to_owned(), value.to_owned());
        changed
    };
    let text = &good[ATTACHMENTS];
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        text.replacen(from, to, 1)
    };
    // As if the control plane had granted it.
    let granted = |text: &str| {
        let mut annotations = with(ATTACHMENTS, text);
        annotations.insert(SIGNATURE.into(), key.sign(text));
        annotations
    };
    let mut unsigned = good.clone();
    unsigned.remove(SIGNATURE);
    let made = &good[SIGNATURE];
    let (id, _) = made.split_once('.').expect("an id comes first");
    let theirs = stranger.sign(text);
    let (_, body) = theirs.split_once('.').expect("an id comes first");
    let audience = format!("{{\"kind\":\"pod\",\"namespace\":\"{NAMESPACE}\"}}");
    let other_pod = changed(
        &audience,
        &format!("{{\"kind\":\"pod\",\"namespace\":\"{NAMESPACE}\",\"pod\":\"somebody-else\"}}"),
    );
    let host = changed(
        &audience,
        "{\"kind\":\"host\",\"node\":\"node-a\",\"container\":\"agent\"}",
    );
    let large = format!("{text}{}", " ".repeat(65_536));
    let not_made = "has not made it";
    let attacks = [
        ("unsigned", unsigned, NAMESPACE, "unsigned"),
        (
            "by a stranger",
            with(SIGNATURE, &theirs),
            NAMESPACE,
            "does not trust",
        ),
        (
            "by a stranger in the name of the key",
            with(SIGNATURE, &format!("{id}.{body}")),
            NAMESPACE,
            not_made,
        ),
        (
            "a signature cut short",
            with(SIGNATURE, &made[..made.len() - 1]),
            NAMESPACE,
            "signature",
        ),
        (
            "an empty signature",
            with(SIGNATURE, ""),
            NAMESPACE,
            "signature",
        ),
        (
            "the signature of another actor's",
            with(SIGNATURE, &of_b[SIGNATURE]),
            NAMESPACE,
            not_made,
        ),
        (
            "attachments cut short",
            with(ATTACHMENTS, &text[..text.len() - 1]),
            NAMESPACE,
            not_made,
        ),
        (
            "another path",
            with(ATTACHMENTS, &changed("/my-data", "/my-dat4")),
            NAMESPACE,
            not_made,
        ),
        (
            "a generation of its own making",
            with(
                ATTACHMENTS,
                &changed("\"generation\":1", "\"generation\":9"),
            ),
            NAMESPACE,
            not_made,
        ),
        ("too large", granted(&large), NAMESPACE, "at most 65536"),
        (
            "in another namespace",
            good.clone(),
            "strangers",
            "pods of namespace",
        ),
        (
            "for another node",
            granted(&changed("node-a", "node-b")),
            NAMESPACE,
            "is for node node-b",
        ),
        (
            "for another pod",
            granted(&other_pod),
            NAMESPACE,
            "somebody-else",
        ),
        (
            "for the host",
            granted(&host),
            NAMESPACE,
            "container of the host",
        ),
        (
            "what was never granted",
            granted(&changed("\"generation\":1", "\"generation\":9")),
            NAMESPACE,
            "newer than the control plane's word",
        ),
        (
            "what is granted otherwise",
            granted(&changed("/my-data", "/my-dat4")),
            NAMESPACE,
            "was changed",
        ),
        ("too late", late, NAMESPACE, "was to begin until"),
    ];
    let before = Seen::of(node);
    for (what, annotations, namespace, named) in attacks {
        let refused = refusal(node, namespace, &annotations, what);
        assert!(refused.message.contains(named), "{what}: {refused}");
        assert!(
            refused.message.contains("actor-volumes"),
            "{what}: {refused}"
        );
        assert_eq!(Seen::of(node), before, "{what}");
        // On a container in a sandbox of its own they count no more.
        let warm = node.run_pod(&Annotations::new());
        let spec = ContainerSpec::idle("agent").annotated(&annotations);
        if namespace == NAMESPACE {
            let refused = node.cri.create_container(&warm, &spec).expect_err(what);
            assert!(refused.message.contains(named), "{what}: {refused}");
        }
        node.remove_pod(&warm);
        assert_eq!(Seen::of(node), before, "{what}");
    }
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
}

fn a_copy_of_a_grant_is_of_no_use_while_it_is_used_nor_when_it_is_over(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let old = node.resume("a");
    let (pod, agent) = node.run_agent(&old);
    node.sh(&agent, "echo kept > /my-data/f && sync");
    let calls = |node: &Node| Seen::of(node).calls;
    let (mounts, before) = (node.held_mounts(), calls(node));
    let copied = refusal(node, NAMESPACE, &old, "the volume is in use");
    assert!(is_retryable(&copied), "{copied}");
    assert!(copied.message.contains("still published"), "{copied}");
    assert_eq!((node.held_mounts(), calls(node)), (mounts, before));
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);

    node.suspend("a");
    let seen = Seen::of(node);
    let late = refusal(node, NAMESPACE, &old, "it is suspended");
    assert!(!is_retryable(&late), "{late}");
    assert_eq!(Seen::of(node), seen);

    let new = node.resume("a");
    let (pod, agent) = node.run_agent(&new);
    let seen = Seen::of(node);
    // The newer grant's signature does not make the old one new.
    let mut mixed = old.clone();
    mixed.insert(SIGNATURE.into(), new[SIGNATURE].clone());
    for (what, annotations) in [("an older generation", &old), ("a mixture", &mixed)] {
        let refused = refusal(node, NAMESPACE, annotations, what);
        assert!(!is_retryable(&refused), "{what}: {refused}");
        assert_eq!(Seen::of(node), seen, "{what}");
    }
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);
}

fn the_key_is_exchanged_while_everything_runs(node: &mut Node) {
    prepare(node);
    for actor in ["a", "b", "c"] {
        create(node, actor, SHARED);
    }
    let config = node.dir.join("config.toml").display().to_string();
    let key = |node: &Node, words: &[&str]| -> serde_json::Value {
        let all = [&["key"], words, &["--config", &config, "-o", "json"]].concat();
        serde_json::from_str(&node.must(&all)).expect("it is JSON")
    };
    let listed = key(node, &["list"]);
    let old = listed["keys"][0]["id"]
        .as_str()
        .expect("there is one")
        .to_owned();
    let (first, second) = (node.resume("a"), node.resume("b"));
    let (running, agent) = node.run_agent(&first);
    key(node, &["rotate"]);
    // The new key signs at once and counts at once, and so does what the old one signed.
    let third = node.resume("c");
    assert!(!third[SIGNATURE].starts_with(&old));
    for annotations in [&third, &second] {
        let (pod, id) = node.run_agent(annotations);
        node.sh(&id, "touch /my-data/f");
        node.remove_pod(&pod);
    }
    key(node, &["remove", &old]);
    until_true("the old key counts no more", SOON, || {
        let spec = PodSpec::new(NAMESPACE, "old-key").annotated(&second);
        let pod = node.cri.run_pod(&spec).expect("the sandbox itself runs");
        let made = node
            .cri
            .create_container(&pod, &ContainerSpec::idle("agent"));
        node.remove_pod(&pod);
        made.is_err_and(|e| e.message.contains("does not trust"))
    });
    // Asked again, the control plane signs the same grant with its new key.
    let again = node.resume("b");
    assert_eq!(again[ATTACHMENTS], second[ATTACHMENTS]);
    let (pod, id) = node.run_agent(&again);
    node.sh(&id, "touch /my-data/f");
    node.remove_pod(&pod);
    node.sh(&agent, "touch /my-data/g");
    node.remove_pod(&running);

    let (levels, _) = doctor::doctor(node);
    assert_eq!(
        (levels["keys"].as_str(), levels["unsigned grants"].as_str()),
        ("ok", "ok")
    );
    node.configure(
        "member_grace_ms",
        &format!("trusted_namespaces = [\"{NAMESPACE}\"]\nmember_grace_ms"),
    );
    let (levels, _) = doctor::doctor(node);
    assert_eq!(levels["unsigned grants"], "warn");
}
