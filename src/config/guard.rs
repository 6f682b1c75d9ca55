// SPDX-License-Identifier: Apache-2.0
//! What stands in the OCI runtime's place.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{AGENT_SOCKET, Node, SOCKET};
use crate::error::{Error, Result};

/// What stands in the OCI runtime's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// The real runtime: a path, or a name that is looked for in PATH; or some, of
    /// which the first that is there is taken.
    pub runtime: RealRuntimes,
    /// Which containers are given their volumes by the wrapper.
    pub inject: Inject,
    /// The node agent's socket; none: the one in `node.run_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// How long the node agent may take to answer, in milliseconds.
    pub deadline_ms: u64,
    /// How long publishing may take for a container that is given its volumes by the
    /// wrapper, a hook, `bundle inject` or `bind`, in milliseconds.
    pub give_deadline_ms: u64,
}

/// Which containers the wrapper gives their volumes. The others it checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inject {
    /// Those that NRI does not serve: all that no pod holds, and pods where this node
    /// has no NRI.
    #[default]
    NoNri,
    /// None.
    Never,
    /// All.
    Always,
}

/// Names or paths of the real runtime, in the order in which they are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMore", into = "OneOrMore")]
pub struct RealRuntimes(pub Vec<PathBuf>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

impl From<OneOrMore> for RealRuntimes {
    fn from(read: OneOrMore) -> Self {
        Self(match read {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        })
    }
}

impl From<RealRuntimes> for OneOrMore {
    fn from(runtimes: RealRuntimes) -> Self {
        match <[PathBuf; 1]>::try_from(runtimes.0) {
            Ok([one]) => Self::One(one),
            Err(more) => Self::More(more),
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            runtime: RealRuntimes(vec!["runc".into()]),
            inject: Inject::default(),
            socket: None,
            deadline_ms: 5_000,
            give_deadline_ms: 20_000,
        }
    }
}

impl Guard {
    pub(super) fn check(&self) -> Result<()> {
        let named = &self.runtime.0;
        if named.is_empty() || named.iter().any(|r| r.as_os_str().is_empty()) {
            return Err(Error::invalid(
                "guard.runtime must name the real OCI runtime, such as runc",
            ));
        }
        if self.deadline_ms == 0 || self.give_deadline_ms == 0 {
            return Err(Error::invalid(
                "guard.deadline_ms and guard.give_deadline_ms must be at least 1",
            ));
        }
        if let Some(socket) = self.socket.as_ref().filter(|s| !s.is_absolute()) {
            return Err(Error::invalid(format!(
                "guard.socket must be an absolute path, not {}",
                socket.display()
            )));
        }
        Ok(())
    }
}

/// What the guard needs of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// The real runtime.
    pub runtime: RealRuntimes,
    /// Which containers are given their volumes.
    pub inject: Inject,
    /// Whether this node has NRI.
    pub nri: bool,
    /// Below it lies everything that is given to anyone.
    pub mount_root: PathBuf,
    /// The node agent's socket.
    pub socket: PathBuf,
    /// Where it is instead as long as that is not there: a daemon that was started
    /// before it had one of its own.
    pub older_socket: Option<PathBuf>,
    /// How long the node agent may take to answer.
    pub deadline: Duration,
    /// How long publishing may take.
    pub give_deadline: Duration,
}

/// The part of the file that the guard reads. It goes on where the daemon would
/// refuse a key: containers must end also while the configuration is being changed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    node: NodePart,
    runtime: RuntimePart,
    guard: GuardPart,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodePart {
    run_dir: Option<PathBuf>,
    mount_root: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimePart {
    nri_socket: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GuardPart {
    runtime: Option<RealRuntimes>,
    inject: Inject,
    socket: Option<PathBuf>,
    deadline_ms: Option<u64>,
    give_deadline_ms: Option<u64>,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self::of(Part::default())
    }
}

impl GuardSettings {
    /// Reads the file; without one, everything is at its default.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => {
                let shown = path.display();
                return Err(
                    Error::invalid(format!("cannot read the configuration {shown}")).with_source(e),
                );
            }
        };
        Self::parse(&text).map_err(|e| e.context(format!("configuration {}", path.display())))
    }

    fn parse(text: &str) -> Result<Self> {
        let part = toml::from_str(text)
            .map_err(|e| Error::invalid(e.to_string().trim_end().to_owned()))?;
        Ok(Self::of(part))
    }

    fn of(part: Part) -> Self {
        let Guard {
            runtime,
            deadline_ms,
            give_deadline_ms,
            ..
        } = Guard::default();
        let node = Node::default();
        let run_dir = part.node.run_dir.unwrap_or(node.run_dir);
        let nri = part.runtime.nri_socket;
        Self {
            runtime: part.guard.runtime.unwrap_or(runtime),
            inject: part.guard.inject,
            nri: nri.is_none_or(|socket| !socket.as_os_str().is_empty()),
            mount_root: part.node.mount_root.unwrap_or(node.mount_root),
            older_socket: match part.guard.socket {
                Some(_) => None,
                None => Some(run_dir.join(SOCKET)),
            },
            socket: part
                .guard
                .socket
                .unwrap_or_else(|| run_dir.join(AGENT_SOCKET)),
            deadline: Duration::from_millis(part.guard.deadline_ms.unwrap_or(deadline_ms)),
            give_deadline: Duration::from_millis(
                part.guard.give_deadline_ms.unwrap_or(give_deadline_ms),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Config, *};

    #[test]
    fn the_guard_reads_its_part_of_a_configuration_that_the_daemon_refuses() {
        let text = "[node]\nrun_dir = \"/r\"\nnew_key = 1\n[guard]\nruntime = \"crun\"\ndeadline_ms = 7\nnewer = 2\n[later]\n";
        assert!(Config::parse(text).is_err());
        let settings = GuardSettings::parse(text).unwrap();
        assert_eq!(settings.runtime.0, [Path::new("crun")]);
        assert_eq!(settings.socket, Path::new("/r/agent.sock"));
        let older = settings.older_socket.unwrap();
        assert_eq!(older, Path::new("/r/actor-volumes.sock"));
        assert_eq!(settings.deadline, Duration::from_millis(7));
    }

    #[test]
    fn without_a_file_it_agrees_with_the_daemon() {
        let settings = GuardSettings::load(Path::new("/nothing/is/here.toml")).unwrap();
        let config = Config::default();
        assert_eq!(settings.runtime, config.guard.runtime);
        assert_eq!(settings.socket, config.agent_socket());
        assert_eq!(settings.mount_root, config.node.mount_root);
        assert_eq!(settings.inject, config.guard.inject);
        assert!(settings.nri);
        assert_eq!(settings.deadline.as_millis(), 5000);
        assert!(GuardSettings::parse("[guard").is_err());
    }

    #[test]
    fn there_may_be_more_than_one_real_runtime_and_no_nri() {
        let text = "[runtime]\nnri_socket = \"\"\n[guard]\nruntime = [\"crun\", \"/x/runc\"]\ninject = \"always\"\n";
        let settings = GuardSettings::parse(text).unwrap();
        assert_eq!(
            settings.runtime.0,
            [Path::new("crun"), Path::new("/x/runc")]
        );
        assert!(!settings.nri);
        assert_eq!(settings.inject, Inject::Always);
        assert!(GuardSettings::parse("[guard]\ninject = \"perhaps\"\n").is_err());
        let written = toml::to_string(&Guard::default()).unwrap();
        assert!(written.contains("runtime = \"runc\"\ninject = \"no-nri\""));
    }

    #[test]
    fn a_guard_that_could_never_work_is_refused() {
        for text in [
            "runtime = \"\"",
            "runtime = []",
            "runtime = [\"runc\", \"\"]",
            "deadline_ms = 0",
            "give_deadline_ms = 0",
            "socket = \"s\"",
        ] {
            assert!(
                Config::parse(&format!("[guard]\n{text}")).is_err(),
                "{text}"
            );
        }
    }
}
