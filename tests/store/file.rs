// SPDX-License-Identifier: Apache-2.0
//! `store check` and `store export`, through the command line.

use std::{
    path::Path,
    process::{Command, Output},
};

use actor_volumes::control::store::{Reader, RedbStore, Store, Write};
use redb::{Database, TableDefinition};
use serde_json::Value;

use crate::sample;

const INDEX: TableDefinition<'_, &str, &str> = TableDefinition::new("index");

fn run(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actor-volumes"))
        .arg("store")
        .args(args)
        .arg(file)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn filled(path: &Path) -> RedbStore {
    let store = RedbStore::open(path).unwrap();
    for n in 0..3 {
        let batch = sample::actor(&format!("a{n}"), "t", 2, n == 0);
        store.write(&batch).unwrap();
    }
    store
}

#[test]
fn a_sound_store_is_found_sound_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    let store = filled(&path);
    let busy = run(&["check"], &path);
    assert_eq!(busy.status.code(), Some(5), "{busy:?}");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("another process"));
    drop(store);
    let before = std::fs::read(&path).unwrap();
    let sound = run(&["check"], &path);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("Nothing is wrong"));
    let sound = report(&run(&["check", "-o", "json"], &path));
    assert_eq!(sound["records"]["volume"], 6);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let missing = run(&["check"], &dir.path().join("other"));
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    let missing = run(&["check", "--repair-indexes"], &dir.path().join("other"));
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn an_index_that_differs_is_found_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    drop(filled(&path));
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut index = transaction.open_table(INDEX).unwrap();
        index.insert("active/agents/ghost/actor", "").unwrap();
        index.remove("template-actor/t/agents/a1").unwrap().unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let wrong = run(&["check", "-o", "json"], &path);
    assert_eq!(wrong.status.code(), Some(9), "{wrong:?}");
    let wrong = report(&wrong);
    let findings = wrong["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "{wrong}");
    assert_eq!(findings[0]["key"], "active/agents/ghost/actor");
    assert_eq!(findings[1]["key"], "template-actor/t/agents/a1");
    assert!(
        findings[0]["remedy"]
            .as_str()
            .unwrap()
            .contains("--repair-indexes")
    );
    let repaired = run(&["check", "--repair-indexes"], &path);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    assert_eq!(run(&["check"], &path).status.code(), Some(0));
}

#[test]
fn records_that_do_not_fit_each_other_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    let store = filled(&path);
    // The actor's record goes, its volumes stay; another cannot be read; a
    // generation was revoked that was never given out.
    let change = |key: String, change: &dyn Fn(String) -> Option<String>| {
        let stored = store.get(&key).unwrap().unwrap();
        let value = change(String::from_utf8(stored.value).unwrap());
        let write = Write {
            key,
            expect: Some(stored.revision),
            value: value.map(String::into_bytes),
        };
        store.write(&[write])
    };
    change("actor/agents/a1".into(), &|_| None).unwrap();
    let refused = change("actor/agents/a2".into(), &|_| Some("{".into()));
    assert!(refused.is_err(), "what cannot be indexed is not written");
    let attached = store.list("attachment/", None, 1).unwrap().items;
    let uid = attached[0].0.split('/').nth(1).unwrap();
    change(format!("volume/{uid}"), &|text| {
        Some(text.replace("\"revoked\":0", "\"revoked\":9"))
    })
    .unwrap();
    let unknown = Write {
        key: "novelty/x".into(),
        expect: None,
        value: Some(b"{}".to_vec()),
    };
    store.write(&[unknown]).unwrap();
    drop(store);
    let found = report(&run(&["check", "-o", "json"], &path));
    let found: Vec<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["key"].as_str().unwrap(), f["problem"].as_str().unwrap()))
        .collect();
    let has = |key: &str, problem: &str| {
        let count = found
            .iter()
            .filter(|(k, p)| k.starts_with(key) && p.contains(problem));
        count.count()
    };
    assert_eq!(has("volume/", "its actor does not exist"), 2, "{found:?}");
    assert_eq!(has("volume/", "generation 9 was revoked"), 1, "{found:?}");
    assert_eq!(has("novelty/x", "does not know"), 1, "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn an_export_is_a_line_a_record_without_contexts_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    drop(filled(&path));
    let plain = run(&["export"], &path);
    assert!(plain.status.success(), "{plain:?}");
    let text = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(text.lines().count(), 3 + 6 + 2);
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record["key"].is_string() && record["revision"].is_u64());
    }
    assert!(!text.contains("hush") && !text.contains("noatime"));
    let whole = run(&["export", "--with-contexts"], &path);
    let whole = String::from_utf8(whole.stdout).unwrap();
    assert!(whole.contains("hush") && whole.contains("noatime"));
}
