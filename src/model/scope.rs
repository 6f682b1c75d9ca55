// SPDX-License-Identifier: Apache-2.0
//! What a publication lives as long as.

use std::fmt;

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
}

/// The name of a scope's directory: 16 hex digits of sha256(scope).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeKey(String);

impl Scope {
    /// The sandbox it is in.
    pub fn sandbox(&self) -> &str {
        match self {
            Self::Sandbox { sandbox, .. } | Self::Member { sandbox, .. } => sandbox,
        }
    }

    /// The runtime it is in.
    pub fn runtime(&self) -> &RuntimeId {
        match self {
            Self::Sandbox { runtime, .. } | Self::Member { runtime, .. } => runtime,
        }
    }

    /// Whether it lives as long as the whole sandbox.
    pub fn is_whole_sandbox(&self) -> bool {
        matches!(self, Self::Sandbox { .. })
    }

    /// The name of its directory.
    pub fn key(&self) -> ScopeKey {
        let mut hash = Sha256::new();
        // The parts are NUL-separated: none of them can hold one.
        for part in [
            match self {
                Self::Sandbox { .. } => "sandbox",
                Self::Member { .. } => "member",
            },
            self.runtime().as_str(),
            self.sandbox(),
        ] {
            hash.update(part);
            hash.update([0]);
        }
        if let Self::Member {
            actor, generation, ..
        } = self
        {
            hash.update(actor.as_str());
            hash.update([0]);
            hash.update(generation.0.to_be_bytes());
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
        let keys = [
            whole("cri:/a").key(),
            whole("cri:/b").key(),
            member("s1", "a", 1).key(),
            member("s1", "a", 2).key(),
            member("s1", "b", 1).key(),
            member("s2", "a", 1).key(),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|k| k.as_str().len() == 16));
    }
}
