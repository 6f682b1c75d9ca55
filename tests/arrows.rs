// SPDX-License-Identifier: Apache-2.0
//! Holds the map of src/lib.rs: which room may use which.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Room → the rooms that it may use. What is not named here may use nothing.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("proto", &[]),
    ("model", &["error"]),
    ("api", &["error", "model"]),
    ("delivery", &["error", "model"]),
    ("policy", &["error", "model"]),
    ("config", &["error", "model", "policy", "transport"]),
    ("host", &["error"]),
    ("keys", &["error", "host"]),
    ("transport", &["error", "host"]),
    ("helper", &["error", "host", "model", "transport"]),
    ("telemetry", &["config", "error"]),
    ("secret", &["error", "model"]),
    ("csi", &["error", "model", "proto", "secret", "transport"]),
    ("cri", &["error", "model", "oci", "proto", "transport"]),
    ("nri", &["error", "proto"]),
    ("rpc", &["error", "model", "proto", "transport"]),
    (
        "node",
        &[
            "api",
            "config",
            "cri",
            "csi",
            "delivery",
            "error",
            "helper",
            "host",
            "keys",
            "model",
            "policy",
            "proto",
            "rpc",
            "secret",
            "telemetry",
        ],
    ),
    ("oci", &["api", "delivery", "error", "model"]),
    (
        "control",
        &[
            "api", "csi", "error", "host", "keys", "model", "proto", "rpc", "secret",
        ],
    ),
    (
        "nri_plugin",
        &[
            "delivery",
            "error",
            "model",
            "node",
            "nri",
            "proto",
            "telemetry",
        ],
    ),
    (
        "local_driver",
        &["error", "host", "model", "proto", "transport"],
    ),
    (
        "link",
        &[
            "api",
            "csi",
            "error",
            "host",
            "keys",
            "model",
            "node",
            "proto",
            "rpc",
            "transport",
        ],
    ),
    // The parsers of outside bytes, each as it is used.
    (
        "fuzz",
        &[
            "api",
            "config",
            "control",
            "csi",
            "delivery",
            "error",
            "host",
            "keys",
            "link",
            "model",
            "node",
            "nri",
            "nri_plugin",
            "oci",
            "proto",
            "rpc",
        ],
    ),
    ("cli", &["api", "config", "error", "model", "proto", "rpc"]),
];

/// The composition root knows all rooms; nobody knows it but main.
const ROOT: &str = "run";

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("src is there") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            found.push((path.display().to_string(), text));
        }
    }
}

/// The rooms that a file names after `crate::`, in `use` trees and in paths.
fn used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    // Tests beside the code may use what they like of the pure rooms, but no
    // other room either: they are read like all else.
    let code: String = text
        .lines()
        .map(|l| l.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(tree) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut take = true;
            for c in tree.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.insert(std::mem::take(&mut word));
                        take = true;
                    }
                    ':' if depth == 0 => take = false,
                    c if depth == 0 && take && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
            }
            rooms.insert(word);
        } else {
            rooms.insert(
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn imports_run_one_way() {
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 30, "the sources were not found");

    let mut wrong = Vec::new();
    let mut rooms = BTreeSet::new();
    for (path, text) in &found {
        let inner = Path::new(path).strip_prefix(&root).unwrap();
        let first = inner.components().next().unwrap().as_os_str();
        let room = first.to_str().unwrap().trim_end_matches(".rs").to_owned();
        rooms.insert(room.clone());
        if ["lib", "main", ROOT].contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = may_use.get(room.as_str()) else {
            wrong.push(format!("{path}: room {room} is not on the map"));
            continue;
        };
        for used in used(text) {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{path}: {room} uses {used}"));
            }
        }
    }
    for (room, _) in MAY_USE {
        assert!(rooms.contains(*room), "{room} is on the map and not in src");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_use_trees_sees_every_room() {
    let text = "use crate::{a::{B, C}, d, e::F as G};\nlet x = crate::h::i(); // crate::no";
    assert_eq!(
        used(text).into_iter().collect::<Vec<_>>(),
        ["a", "d", "e", "h"]
    );
}

#[test]
fn unsafe_code_lives_in_one_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    for (path, text) in found {
        let inner = Path::new(&path).strip_prefix(&root).unwrap().to_owned();
        let allows = text.contains("allow(unsafe_code)");
        assert!(
            !allows || inner.starts_with("host"),
            "{path} allows unsafe code"
        );
    }
}

/// What is mounted below a path that is deleted with all in it is deleted, too.
#[test]
fn nothing_is_deleted_recursively_but_by_the_driver_whose_files_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let mut users = BTreeSet::new();
    for (path, text) in found {
        for word in ["remove_dir_all", "\"rm\"", "rm -r"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
        // It goes over no mount, and follows no link.
        if text.contains("remove_tree") {
            let inner = Path::new(&path).strip_prefix(&root).unwrap();
            users.insert(inner.display().to_string());
        }
    }
    let known = ["host/tree.rs", "local_driver/store.rs"];
    assert_eq!(users, known.map(str::to_owned).into());
}
