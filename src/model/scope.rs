// SPDX-License-Identifier: Apache-2.0
//! What a publication lives as long as.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ActorUid, Generation, RuntimeId};

/// What a publication lives as long as.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Scope {
    /// A pod sandbox: every container of the pod.
    Sandbox {
        /// The runtime that holds the sandbox.
        runtime: RuntimeId,
        /// The sandbox id.
        sandbox: String,
    },
    /// One actor at one generation in a warm sandbox that runs one actor after
    /// another. Container ids are members of the scope, not a part of its name.
    Member {
        /// The runtime that holds the sandbox.
        runtime: RuntimeId,
        /// The sandbox id.
        sandbox: String,
        /// The actor's unique id.
        actor: ActorUid,
        /// The highest generation of its grant.
        generation: Generation,
    },
    /// One container that came by a door without a CRI. Container ids repeat, so its
    /// birth is a part of its name.
    Container {
        /// The door.
        door: Door,
        /// The OCI runtime's root, or the bundle where that is not known.
        runtime: RuntimeId,
        /// The container's id there.
        container: String,
        /// By what it is told from others of this id: the process that made it with its
        /// start time, or the bundle's inode.
        birth: String,
    },
}

/// How a container comes to its volumes where there is no NRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Door {
    /// An OCI hook mounts them while the container is created.
    Hook,
    /// What stands in the OCI runtime's place writes them into config.json.
    Runtime,
    /// `bundle inject` has written them into config.json.
    Bundle,
    /// They are mounted into a container that runs.
    Bind,
}

impl Door {
    /// Its name, as records and people have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Runtime => "runtime",
            Self::Bundle => "bundle",
            Self::Bind => "bind",
        }
    }
}

/// The name of a scope's directory: 16 hex digits of sha256(scope).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeKey(String);

impl Scope {
    /// The sandbox it is in; none: no pod holds it.
    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Self::Sandbox { sandbox, .. } | Self::Member { sandbox, .. } => Some(sandbox),
            Self::Container { .. } => None,
        }
    }

    /// What is told apart by one name on a node: the sandbox, or the container that no
    /// pod holds. No sandbox id has a space in it.
    pub fn home(&self) -> Cow<'_, str> {
        match self {
            Self::Sandbox { sandbox, .. } | Self::Member { sandbox, .. } => sandbox.into(),
            Self::Container { .. } => format!("container {}", self.key().as_str()).into(),
        }
    }

    /// The runtime it is in.
    pub fn runtime(&self) -> &RuntimeId {
        match self {
            Self::Sandbox { runtime, .. }
            | Self::Member { runtime, .. }
            | Self::Container { runtime, .. } => runtime,
        }
    }

    /// Whether it lives as long as its members, and not by itself.
    pub fn has_members(&self) -> bool {
        matches!(self, Self::Member { .. })
    }

    /// The name of its directory.
    pub fn key(&self) -> ScopeKey {
        let mut hash = Sha256::new();
        // The parts are NUL-separated: none of them can hold one.
        let mut parts = |parts: &[&str]| {
            for part in parts {
                hash.update(part);
                hash.update([0]);
            }
        };
        match self {
            Self::Sandbox { runtime, sandbox } => parts(&["sandbox", runtime.as_str(), sandbox]),
            Self::Member {
                runtime,
                sandbox,
                actor,
                generation,
            } => {
                parts(&["member", runtime.as_str(), sandbox, actor.as_str()]);
                hash.update(generation.0.to_be_bytes());
            }
            Self::Container {
                door,
                runtime,
                container,
                birth,
            } => parts(&[
                "container",
                door.as_str(),
                runtime.as_str(),
                container,
                birth,
            ]),
        }
        ScopeKey(hex::encode(&hash.finalize()[..8]))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox { sandbox, .. } => write!(f, "sandbox {sandbox}"),
            Self::Member {
                sandbox,
                actor,
                generation,
                ..
            } => write!(
                f,
                "actor {actor} at generation {generation} in sandbox {sandbox}"
            ),
            Self::Container {
                runtime, container, ..
            } => write!(f, "container {container} of {runtime}"),
        }
    }
}

impl ScopeKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_scope_counts_in_its_key() {
        let runtime = |name: &str| RuntimeId::new(name).unwrap();
        let member = |sandbox: &str, actor: &str, generation| Scope::Member {
            runtime: runtime("cri:/a"),
            sandbox: sandbox.into(),
            actor: ActorUid::new(actor).unwrap(),
            generation: Generation(generation),
        };
        let whole = |name: &str| Scope::Sandbox {
            runtime: runtime(name),
            sandbox: "s1".into(),
        };
        let host = |door, name: &str, container: &str, birth: &str| Scope::Container {
            door,
            runtime: runtime(name),
            container: container.into(),
            birth: birth.into(),
        };
        let keys = [
            whole("cri:/a").key(),
            whole("cri:/b").key(),
            member("s1", "a", 1).key(),
            member("s1", "a", 2).key(),
            member("s1", "b", 1).key(),
            member("s2", "a", 1).key(),
            host(Door::Hook, "oci:/r", "c1", "p1").key(),
            host(Door::Runtime, "oci:/r", "c1", "p1").key(),
            host(Door::Hook, "oci:/s", "c1", "p1").key(),
            host(Door::Hook, "oci:/r", "c2", "p1").key(),
            host(Door::Hook, "oci:/r", "c1", "p2").key(),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|k| k.as_str().len() == 16));
    }
}
