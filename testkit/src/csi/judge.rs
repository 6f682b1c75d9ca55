// SPDX-License-Identifier: Apache-2.0
//! Judges the caller: what it was told, and which rule of CSI it breaks.
//!
//! This is apart from what the driver really did. A driver that lies or forgets
//! does not make its caller guilty.

mod controller;
mod node;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};
use tonic::Code;

pub(super) use controller::{is_shared, reaches};

use super::{Options, options::Segments};

/// Where and under which promises a call is judged.
pub(super) struct At<'a> {
    pub(super) options: &'a Options,
    /// The node id of the socket it came to; empty at a controller's.
    pub(super) node: &'a str,
}

/// How a call ended.
pub(super) enum End<'a, T> {
    /// With OK, to a caller who waited for it.
    Heard(&'a T),
    /// With OK, but the caller can not know.
    Unheard(&'a T),
    /// With this code, which may be a lie about what was done.
    Failed(Code),
}

impl<T> End<'_, T> {
    fn heard(&self) -> bool {
        matches!(self, Self::Heard(_))
    }

    /// Whether the caller may take it that nothing was done, as other callers
    /// of CSI do.
    fn is_final(&self) -> bool {
        let Self::Failed(code) = self else {
            return false;
        };
        !matches!(
            code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::Aborted
                | Code::ResourceExhausted
        )
    }

    /// The same of a call that makes, deletes or grows a volume: there
    /// RESOURCE_EXHAUSTED is as final as any other code.
    fn is_refusal(&self) -> bool {
        self.is_final() || matches!(self, Self::Failed(Code::ResourceExhausted))
    }

    /// Whether something that was to be undone is gone for the caller.
    fn is_gone(&self) -> bool {
        self.heard() || matches!(self, Self::Failed(Code::NotFound))
    }
}

/// A rule that was broken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) code: Code,
    pub(super) text: String,
}

type Judgement = Result<(), Broken>;

fn rule(kept: bool, text: impl FnOnce() -> String) -> Judgement {
    if kept {
        return Ok(());
    }
    Err(Broken {
        code: Code::FailedPrecondition,
        text: text(),
    })
}

/// A call or field that only a driver with this capability may meet.
fn offered(has: bool, about: &str, capability: &str) -> Judgement {
    if has {
        return Ok(());
    }
    Err(Broken {
        code: Code::Unimplemented,
        text: format!("{about}: {capability} was not advertised"),
    })
}

/// A field that must be set.
fn required(set: bool, about: &str, field: &str) -> Judgement {
    if set {
        return Ok(());
    }
    Err(Broken {
        code: Code::InvalidArgument,
        text: format!("{about}: no {field}"),
    })
}

/// What the caller was told of all volumes.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Judge {
    /// By id.
    volumes: BTreeMap<String, Told>,
    /// Volumes that are deleted, by id, with their names: they must not come back.
    deleted: BTreeMap<String, String>,
    /// The fields of calls that were tried and not yet negated, as hashes, by
    /// what they are about. A retry must have the same.
    tried: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Told {
    name: String,
    context: BTreeMap<String, String>,
    /// From where it can be reached; empty: from everywhere.
    topology: Vec<Segments>,
    /// A DeleteVolume is on its way.
    deleting: bool,
    /// ControllerExpandVolume was answered with OK.
    expanded: bool,
    nodes: BTreeMap<String, AtNode>,
}

#[derive(Default, Serialize, Deserialize)]
struct AtNode {
    attached: Option<Known>,
    publish_context: BTreeMap<String, String>,
    staged: Option<(String, Known)>,
    published: BTreeMap<String, Known>,
}

/// What the caller knows of something that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Known {
    /// It may be so: no answer was heard, or its undoing is on its way.
    Maybe,
    /// It was answered with OK.
    Yes,
}

impl AtNode {
    fn is_released(&self) -> bool {
        self.staged.is_none() && self.published.is_empty()
    }

    fn has(&self, path: &str) -> bool {
        self.staged.as_ref().is_some_and(|(p, _)| p == path) || self.published.contains_key(path)
    }
}

impl Told {
    fn in_use(&self) -> Option<String> {
        self.nodes.iter().find_map(|(node, at)| {
            let published: Vec<_> = at.published.keys().collect();
            let used = at.attached.is_some() || !at.is_released();
            used.then(|| {
                format!(
                    "at {node}: attached {}, staged {}, published at {published:?}",
                    at.attached.is_some(),
                    at.staged.is_some(),
                )
            })
        })
    }
}

impl Judge {
    /// A volume that is there for the caller.
    fn alive(&self, about: &str, id: &str) -> Result<Option<&Told>, Broken> {
        required(!id.is_empty(), about, "volume_id")?;
        rule(!self.deleted.contains_key(id), || {
            format!("{about} after it was deleted")
        })?;
        let told = self.volumes.get(id);
        rule(told.is_none_or(|t| !t.deleting), || {
            format!("{about} after DeleteVolume was called")
        })?;
        Ok(told)
    }

    fn at_node(&mut self, id: &str, node: &str) -> Option<&mut AtNode> {
        let told = self.volumes.get_mut(id)?;
        Some(told.nodes.entry(node.into()).or_default())
    }

    /// A retry has the fields of the first try.
    fn same_fields(&mut self, about: &str, fields: Fields) -> Judgement {
        let first = self
            .tried
            .entry(about.into())
            .or_insert_with(|| fields.0.clone());
        let names = first.iter().filter(|(k, v)| fields.0.get(*k) != Some(*v));
        let names: Vec<_> = names.map(|(k, _)| k.as_str()).collect();
        rule(names.is_empty(), || {
            format!("{about}: a retry with other fields: {}", names.join(", "))
        })
    }

    /// The node is gone for good, with all that was mounted on it.
    pub(super) fn fence(&mut self, node: &str) {
        for (id, told) in &mut self.volumes {
            let Some(at) = told.nodes.get_mut(node) else {
                continue;
            };
            at.staged = None;
            at.published.clear();
            for method in ["NodeStageVolume", "NodePublishVolume", "NodeExpandVolume"] {
                let prefix = format!("{method} {id} on {node} ");
                self.tried.retain(|about, _| !about.starts_with(&prefix));
            }
        }
    }
}

/// The fields of a request, by name, as hashes: they must not be kept in plain.
#[derive(Default)]
struct Fields(BTreeMap<String, u64>);

impl Fields {
    fn with(mut self, name: &str, value: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        self.0.insert(name.into(), hasher.finish());
        self
    }

    fn with_map(self, name: &str, map: &HashMap<String, String>) -> Self {
        self.with(name, sorted(map))
    }
}

fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}
