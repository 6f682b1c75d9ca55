// SPDX-License-Identifier: Apache-2.0
//! Our OCI hooks, as a bundle has them and as containerd gives them to every container.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::setup::{actor_volumes, setup};

/// For config.json; they read this configuration.
pub(crate) fn hooks(config: &Path) -> Value {
    let program = actor_volumes().get_program().to_owned();
    let hook = |stage: &str| {
        json!([{
            "path": program.to_string_lossy(),
            "args": ["actor-volumes", "hook", stage],
            "env": [format!("ACTOR_VOLUMES_CONFIG={}", config.display())],
            "timeout": 60,
        }])
    };
    json!({"createRuntime": hook("createRuntime"), "poststop": hook("poststop")})
}

/// Writes what the CRI of this containerd makes of every container at first, with our
/// hooks in it.
pub(crate) fn base_spec(dir: &Path, version: &str) -> PathBuf {
    let bin = setup().tool(&format!("containerd-{version}"));
    let ctr = bin.expect("the node runs it").join("ctr");
    let output = Command::new(ctr).args(["oci", "spec"]).output();
    let output = output.expect("ctr runs");
    let mut spec: Value = serde_json::from_slice(&output.stdout).expect("a spec is JSON");
    spec["hooks"] = hooks(&dir.join("config.toml"));
    let file = dir.join("base-spec.json");
    fs::write(&file, spec.to_string()).expect("the node's directory takes files");
    file
}
