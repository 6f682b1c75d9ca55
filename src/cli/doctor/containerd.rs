// SPDX-License-Identifier: Apache-2.0
//! What `containerd config dump` says that matters for volumes. Pure.

use toml::{Table, Value};

use crate::{
    api::annotation::{ACTOR, ATTACHMENTS},
    error::{Error, Result},
};

/// The CRI's runtimes are below one of these: of 2.x, and of 1.x.
const CRI: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];
const NRI: &str = "io.containerd.nri.v1.nri";

/// What matters of a containerd's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Whether NRI is on.
    pub nri: bool,
    /// Whether the validator of NRI is on; none: this version has none.
    pub validator: Option<bool>,
    /// The runtimes that are called as runc is.
    pub runtimes: Vec<RuntimeHandler>,
}

/// A runtime of the CRI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Its name, as in a RuntimeClass.
    pub name: String,
    /// The program; empty: runc.
    pub binary: String,
    /// Whether our annotations of pods and of containers are passed on to it.
    pub passes_annotations: bool,
}

impl RuntimeSettings {
    /// Reads what `containerd config dump` printed.
    pub fn parse(dump: &str) -> Result<Self> {
        let all: Table = toml::from_str(dump).map_err(|e| {
            Error::internal("cannot read what `containerd config dump` printed").with_source(e)
        })?;
        let plugin = |name: &str| all.get("plugins")?.get(name);
        let nri = plugin(NRI);
        let validator = nri.and_then(|n| n.get("default_validator"));
        let runtimes = CRI
            .iter()
            .find_map(|cri| plugin(cri)?.get("containerd")?.get("runtimes")?.as_table());
        let runtimes = runtimes.into_iter().flatten();
        Ok(Self {
            nri: nri.is_some_and(|n| !is_true(n.get("disable"))),
            validator: validator.map(|v| is_true(v.get("enable"))),
            runtimes: runtimes
                .filter_map(|(name, of)| handler(name, of))
                .collect(),
        })
    }
}

fn handler(name: &str, of: &Value) -> Option<RuntimeHandler> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    // Others make their containers in ways of their own.
    if text(of.get("runtime_type")) != "io.containerd.runc.v2" {
        return None;
    }
    let passes = |key| {
        let patterns: Vec<&str> = of
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        [ACTOR, ATTACHMENTS]
            .iter()
            .all(|ours| patterns.iter().any(|p| matches(p, ours)))
    };
    Some(RuntimeHandler {
        name: name.to_owned(),
        binary: text(of.get("options").and_then(|o| o.get("BinaryName"))),
        passes_annotations: passes("pod_annotations") && passes("container_annotations"),
    })
}

/// As containerd matches, where the only wild card is a `*` at the end, which
/// stands for no `/`.
fn matches(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => key
            .strip_prefix(start)
            .is_some_and(|rest| !rest.contains('/')),
        None => pattern == key,
    }
}

fn is_true(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(name: &str, binary: &str, passes: bool) -> RuntimeHandler {
        RuntimeHandler {
            name: name.into(),
            binary: binary.into(),
            passes_annotations: passes,
        }
    }

    #[test]
    fn the_drop_ins_that_are_shipped_are_recognised() {
        for dropped in [
            include_str!("../../../packaging/containerd/actor-volumes-guard.toml"),
            include_str!("../../../packaging/containerd/actor-volumes-guard-1.7.toml"),
        ] {
            // Of 2.x the type stands in the configuration that imports it.
            let key = ".runtimes.runc]\n";
            let typed = dropped.replace("runtime_type = \"io.containerd.runc.v2\"\n", "");
            let typed = typed.replacen(
                key,
                &format!("{key}runtime_type = \"io.containerd.runc.v2\"\n"),
                1,
            );
            let settings = RuntimeSettings::parse(&typed).unwrap();
            let guard = handler("runc", "/usr/bin/actor-volumes-runtime", true);
            assert_eq!(settings.runtimes, [guard]);
        }
    }

    #[test]
    fn nri_validator_and_every_runtime_of_runcs_kind_are_read() {
        let dump = r#"
            [plugins.'io.containerd.nri.v1.nri']
            disable = false
            [plugins.'io.containerd.nri.v1.nri'.default_validator]
            enable = true
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
            runtime_type = 'io.containerd.runc.v2'
            pod_annotations = ['actor-volumes.dev/*']
            container_annotations = []
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun]
            runtime_type = 'io.containerd.runc.v2'
            pod_annotations = ['*', 'actor-volumes.dev/act*', 'actor-volumes.dev/attachments']
            container_annotations = ['actor-volumes.dev/*']
            options = { BinaryName = '/g' }
            [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]
            runtime_type = 'io.containerd.kata.v2'
        "#;
        let settings = RuntimeSettings::parse(dump).unwrap();
        assert!(settings.nri);
        assert_eq!(settings.validator, Some(true));
        let both = [handler("crun", "/g", true), handler("runc", "", false)];
        assert_eq!(settings.runtimes, both);
    }

    #[test]
    fn what_is_not_there_is_off() {
        let none = RuntimeSettings::parse("version = 2\n").unwrap();
        assert_eq!(none, RuntimeSettings::default());
        let off = "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n";
        assert!(!RuntimeSettings::parse(off).unwrap().nri);
        assert!(RuntimeSettings::parse("[").is_err());
    }
}
