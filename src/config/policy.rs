// SPDX-License-Identifier: Apache-2.0
//! What pods of this node may have of volumes, whatever a grant says.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::{Error, Result},
    model::{DnsLabel, DriverName},
    policy::{self, Choice, PathRules},
};

/// What stands for all of a kind.
const ALL: &str = "all";

/// What pods of this node may have of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The drivers whose volumes are given: `all`, or a list.
    pub drivers: Listed<DriverName>,
    /// The namespaces whose pods get volumes: `all`, or a list.
    pub namespaces: Listed<DnsLabel>,
    /// Paths in a container at, below and above which no volume is mounted.
    pub deny_mount_paths: Vec<String>,
    /// Paths at and below which volumes may be mounted all the same.
    pub allow_mount_paths: Vec<String>,
    /// The drivers whose volumes are mounted `noexec`: `all`, or a list.
    pub noexec: Listed<DriverName>,
    /// Whether block devices are given.
    pub block_devices: bool,
    /// The most volumes of one pod.
    pub max_volumes: usize,
    /// The most mounts of one grant.
    pub max_mounts: usize,
    /// The most devices of one grant.
    pub max_devices: usize,
}

/// `all`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed<T> {
    /// All there are.
    All,
    /// These alone.
    Only(Vec<T>),
}

impl<T: Serialize> Serialize for Listed<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => to.serialize_str(ALL),
            Self::Only(list) => list.serialize(to),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"all\", or a list of names")]
        enum Written<T> {
            Word(Word),
            List(Vec<T>),
        }
        #[derive(Deserialize)]
        enum Word {
            #[serde(rename = "all")]
            All,
        }
        Ok(match Written::deserialize(from)? {
            Written::Word(Word::All) => Self::All,
            Written::List(list) => Self::Only(list),
        })
    }
}

impl<T: Ord + Clone> Listed<T> {
    fn choice(&self) -> Choice<T> {
        match self {
            Self::All => Choice::All,
            Self::Only(list) => Choice::Only(list.iter().cloned().collect()),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            drivers: Listed::All,
            namespaces: Listed::All,
            deny_mount_paths: policy::DENIED.map(str::to_owned).to_vec(),
            allow_mount_paths: Vec::new(),
            noexec: Listed::Only(Vec::new()),
            block_devices: true,
            max_volumes: 64,
            max_mounts: 256,
            max_devices: 64,
        }
    }
}

impl Policy {
    pub(super) fn check(&self) -> Result<()> {
        for (key, paths) in [
            ("deny_mount_paths", &self.deny_mount_paths),
            ("allow_mount_paths", &self.allow_mount_paths),
        ] {
            if let Some(bad) = paths.iter().find(|path| !is_plain(path)) {
                return Err(Error::invalid(format!(
                    "policy.{key} must hold absolute paths without '.' and '..', not {bad:?}"
                )));
            }
        }
        Ok(())
    }

    /// The rules, ready to be asked.
    pub fn rules(&self) -> policy::Policy {
        policy::Policy {
            drivers: self.drivers.choice(),
            namespaces: match &self.namespaces {
                Listed::All => Choice::All,
                Listed::Only(list) => policy::namespaces(list.iter().cloned()),
            },
            paths: PathRules::new(&self.deny_mount_paths, &self.allow_mount_paths),
            no_exec: self.noexec.choice(),
            block_devices: self.block_devices,
            max_volumes: self.max_volumes,
            max_mounts: self.max_mounts,
            max_devices: self.max_devices,
        }
    }
}

/// Whether it says what it looks like.
fn is_plain(path: &str) -> bool {
    Path::new(path).is_absolute()
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part == "." || part == "..")
}

#[cfg(test)]
mod tests {
    use super::{super::Config, *};

    #[test]
    fn a_policy_is_read_and_written_back_as_the_same() {
        let text = "[policy]\ndrivers = [\"a.test\"]\nnamespaces = \"all\"\nnoexec = \"all\"\nallow_mount_paths = [\"/etc/my-app\"]\nmax_volumes = 3\n";
        let config = Config::parse(text).unwrap();
        let policy = &config.policy;
        assert_eq!(policy.namespaces, Listed::All);
        assert_eq!(policy.noexec, Listed::All);
        assert_eq!(policy.max_volumes, 3);
        assert_eq!(policy.max_mounts, 256);
        let driver = |name: &str| name.parse().unwrap();
        let rules = policy.rules();
        assert!(rules.drivers.has(&driver("a.test")) && !rules.drivers.has(&driver("b.test")));
        assert_eq!(rules.paths.check("/etc/my-app"), Ok(()));
        let again = toml::to_string(&config).unwrap();
        assert_eq!(Config::parse(&again).unwrap(), config);
    }

    #[test]
    fn what_no_policy_can_mean_is_refused() {
        for (text, why) in [
            ("drivers = \"some\"", "a list of names"),
            ("drivers = [\"a b\"]", "a list of names"),
            ("namespaces = [\"A\"]", "a list of names"),
            ("deny_mount_paths = [\"etc\"]", "policy.deny_mount_paths"),
            (
                "allow_mount_paths = [\"/etc/../x\"]",
                "policy.allow_mount_paths",
            ),
            ("max_volume = 3", "max_volume"),
        ] {
            let refused = Config::parse(&format!("[policy]\n{text}\n")).unwrap_err();
            let refused = refused.full_message();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn by_default_only_paths_are_ruled_out() {
        let rules = Policy::default().rules();
        assert_eq!(rules.paths, PathRules::default());
        assert_eq!(rules.drivers, Choice::All);
        assert!(!rules.no_exec.has(&"a.test".parse().unwrap()));
    }
}
