// SPDX-License-Identifier: Apache-2.0
//! A real process is killed while it writes, again and again. What it told of on
//! its standard output is there afterwards.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use actor_volumes::control::store::{Reader, RedbStore};

use crate::disk::{pair, write_pair};

const FILE: &str = "AV_TEST_STORE";

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "started by the test that kills it"]
fn writes_until_it_is_killed() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let store = RedbStore::open(Path::new(&path)).unwrap();
    let first = store.list("left/", None, 100_000).unwrap().items.len();
    let mut out = std::io::stdout();
    for n in first.. {
        write_pair(&store, n, &format!("value {n}")).unwrap();
        // On a line of its own, whatever the harness printed before.
        writeln!(out, "\nacknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_process_killed_while_it_writes_loses_nothing_that_it_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    let mut told = 0;
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = told + 1 + fastrand::usize(..30);
        for line in lines.by_ref() {
            if let Some(n) = line.unwrap().strip_prefix("acknowledged ") {
                told = n.parse::<usize>().unwrap() + 1;
            }
            if told >= enough {
                break;
            }
        }
        child.kill().unwrap();
        // What it told of between the last look and its end counts as well.
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("acknowledged ")
                && let Ok(n) = n.parse::<usize>()
            {
                told = n + 1;
            }
        }
        child.wait().unwrap();
        let store = RedbStore::open(&path).unwrap();
        for n in 0..told {
            for key in pair(n) {
                let found = store.get(&key).unwrap();
                let found = found.unwrap_or_else(|| panic!("round {round}: {key} is lost"));
                assert_eq!(found.value, format!("value {n}").as_bytes());
            }
        }
        let [left, right] = pair(told);
        let halves = (store.get(&left).unwrap(), store.get(&right).unwrap());
        assert_eq!(halves.0.is_some(), halves.1.is_some(), "half a batch");
    }
    println!("{told} batches over 20 kills");
    assert!(told >= 20);
}
