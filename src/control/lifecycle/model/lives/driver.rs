// SPDX-License-Identifier: Apache-2.0
//! The driver and the nodes of the random lives: what a step does to them.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::super::*, Sim};
use crate::{
    control::record::{CreateRequest, Opaque},
    csi::Accessibility,
    error::Kind,
    model::{AccessMode, Generation},
};

/// The driver and the nodes.
#[derive(Default)]
pub struct World {
    /// By CSI name: the id, and the request that made it.
    pub volumes: BTreeMap<String, (String, CreateRequest)>,
    pub attached: BTreeSet<(String, String)>,
    /// (id, node) → the generation that a pod uses.
    pub published: BTreeMap<(String, NodeName), Generation>,
    /// (id, node) → generations up to this are refused.
    pub revoked: BTreeMap<(String, NodeName), Generation>,
    /// Ids of volumes that hold somebody's data.
    pub written: BTreeSet<String>,
    /// By id: how large the driver made it, and how large the node did.
    pub sizes: BTreeMap<String, (u64, u64)>,
    pub attaches: bool,
    /// Expands only what is attached nowhere.
    pub offline: bool,
    /// By id: the size of an expansion that was sent and has no sure answer.
    pub growing: BTreeMap<String, u64>,
}

impl Sim {
    /// A driver may refuse to make a volume again though it made it before, when
    /// it looks at its limits first. Whoever wants to delete is told that nothing
    /// is there only where that is true; else that he has no right to ask.
    pub fn refusal(&self, at: &State, step: &Step) -> Kind {
        let record = &at.volumes[step.volume()];
        let there = self.world.volumes.contains_key(&record.create.name);
        if there && record.phase == VolumePhase::Deleting {
            return Kind::PermissionDenied;
        }
        Kind::InvalidInput
    }

    pub fn effect(&mut self, at: &State, step: &Step) -> Outcome {
        let record = &at.volumes[step.volume()];
        let id = record.volume_id.clone();
        match step {
            Step::Prepare { .. } => Outcome::Prepared {
                access_mode: AccessMode::SingleNodeWriter,
                accessibility: Accessibility {
                    // Another at every try: what was sent must not follow it.
                    requisite: vec![[("t".to_owned(), self.now.to_string())].into()],
                    preferred: Vec::new(),
                },
            },
            Step::Create { .. } => {
                assert!(record.prepared, "created before it was prepared");
                let next = format!("id-{}", record.create.name);
                let made = self
                    .world
                    .volumes
                    .entry(record.create.name.clone())
                    .or_insert((next, record.create.clone()));
                assert_eq!(made.1, record.create, "a retry with other fields");
                Outcome::Created {
                    volume_id: made.0.clone(),
                    capacity_bytes: 1,
                    volume_context: Opaque::default(),
                    accessible_topology: Vec::new(),
                }
            }
            Step::Locate { node, .. } => {
                Outcome::Located(self.world.attaches.then(|| format!("id-of-{node}")))
            }
            Step::Attach { node, .. } => {
                let attachment = &at.attachments[&(record.uid.clone(), node.clone())];
                let NodeId::Known(node_id) = &attachment.node_id else {
                    panic!("attached without a node id");
                };
                let elsewhere = |a: &(String, String)| a.0 == id && &a.1 != node_id;
                assert!(!self.world.attached.iter().any(elsewhere), "two nodes");
                self.world.attached.insert((id, node_id.clone()));
                Outcome::Attached(Opaque::default())
            }
            Step::Revoke {
                node, generation, ..
            } => {
                let mark = self.world.revoked.entry((id, node.clone())).or_default();
                *mark = (*mark).max(*generation);
                Outcome::Done
            }
            Step::AwaitRelease { node, .. } => {
                if self.world.published.contains_key(&(id, node.clone())) {
                    return Outcome::failed("held by a pod", Kind::Unavailable, Certainty::NotDone);
                }
                Outcome::Done
            }
            Step::DetachAgain { .. } => {
                let node_id = &record.leftover.as_ref().unwrap().node_id;
                let node: NodeName = node_id.strip_prefix("id-of-").unwrap().parse().unwrap();
                let in_use = self.world.published.contains_key(&(id.clone(), node));
                assert!(!in_use, "I2: in use");
                self.world.attached.remove(&(id, node_id.clone()));
                Outcome::Done
            }
            Step::Expand { .. } => {
                let wanted = record.expansion.as_ref().unwrap().wanted_bytes;
                let attached = at.attachments_of(&record.uid).next().is_some();
                if self.world.offline && attached {
                    return Outcome::OfflineOnly;
                }
                let last = self.world.growing.insert(id.clone(), wanted);
                assert!(
                    last.is_none_or(|l| l == wanted),
                    "a retry with another size"
                );
                let size = self.world.sizes.entry(id).or_default();
                size.0 = size.0.max(wanted);
                Outcome::Expanded {
                    capacity_bytes: size.0,
                    node_required: true,
                }
            }
            Step::ExpandNode { node, .. } => {
                if !self
                    .world
                    .published
                    .contains_key(&(id.clone(), node.clone()))
                {
                    return Outcome::NotPublished;
                }
                let size = self.world.sizes.entry(id).or_default();
                size.1 = size.1.max(record.capacity_bytes);
                Outcome::Done
            }
            Step::Detach { node, .. } => {
                let at_node = (id.clone(), node.clone());
                assert!(!self.world.published.contains_key(&at_node), "I2: in use");
                self.world.attached.remove(&(id, format!("id-of-{node}")));
                Outcome::Done
            }
            Step::Delete { .. } => {
                let used = |a: &(String, String)| a.0 == id;
                assert!(!self.world.attached.iter().any(used), "I1: attached");
                assert!(
                    !self.world.published.keys().any(|k| k.0 == id),
                    "I1: in use"
                );
                let kept = record.reclaim_policy == ReclaimPolicy::Retain;
                assert!(!(kept && self.world.written.contains(&id)), "kept data");
                self.world.volumes.retain(|_, v| v.0 != id);
                // The tombstone says who is to forget it.
                self.world.revoked.retain(|(volume, node), _| {
                    assert!(*volume != id || record.nodes.contains(node), "a mark stays");
                    *volume != id
                });
                Outcome::Done
            }
        }
    }
}
