// SPDX-License-Identifier: Apache-2.0
//! The definitions in hooks.d are what Podman and CRI-O take, and call the hook as it is.

use std::{collections::BTreeMap, fs, path::Path};

use actor_volumes::{
    api::annotation,
    cli::{Cli, Command, Stage},
    config::Config,
};
use clap::Parser;
use serde::Deserialize;

/// oci-hooks(5), version 1.0.0. Those who read it pass over keys that they do not know,
/// so that a misspelt one would be of no effect.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    version: String,
    hook: Hook,
    when: When,
    stages: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    annotations: BTreeMap<String, String>,
}

#[test]
fn each_definition_is_one_hook_for_containers_of_ours() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d");
    let mut stages = Vec::new();
    let guard = Config::default().guard;
    let longest = 2 * guard.give_deadline_ms + guard.deadline_ms;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let read: Definition = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read.version, "1.0.0");
        assert!(Path::new(&read.hook.path).is_absolute());
        assert!(!read.hook.env.is_empty(), "it would be the runtime's");
        let [stage] = read.stages.as_slice() else {
            panic!("{}: one stage a file", path.display());
        };
        // A regular expression that is not anchored by itself.
        let prefix = annotation::PREFIX.replace('.', "\\.");
        let wanted = BTreeMap::from([(format!("^{prefix}"), ".*".to_owned())]);
        assert_eq!(read.when.annotations, wanted);
        let called = Cli::try_parse_from(&read.hook.args).unwrap().command;
        let Command::Hook(called) = called else {
            panic!("{}: it calls something else", path.display());
        };
        assert_eq!(Some(called.stage), Stage::of(stage));
        // It gives up before it is killed.
        let all = match called.stage {
            Stage::Poststop => guard.give_deadline_ms,
            _ => longest,
        };
        assert!(read.hook.timeout * 1000 > all, "{}", path.display());
        stages.push(stage.clone());
    }
    stages.sort();
    assert_eq!(stages, ["createRuntime", "poststop"]);
}
