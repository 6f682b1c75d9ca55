// SPDX-License-Identifier: Apache-2.0
//! Planted bugs: each changes what the state machine says as it would if one of
//! its guards were missing. The search must find every one of them.

use super::super::*;
use super::{
    op::Budget,
    search::{Order, search},
    sim::Sim,
    world::Broken,
};
use crate::model::Generation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    DeleteAttached,
    DetachUnreleased,
    GenerationKept,
    NoIntent,
    OtherRequest,
    RevokeSkipped,
    LeftoverForgotten,
    FenceUnconfirmed,
    AttachBeforeDetach,
    RecordDroppedEarly,
}

impl Bug {
    pub fn in_plan(self, state: &State, steps: &mut Vec<Step>) {
        match self {
            Self::DeleteAttached => {
                let deleted = state.actor.as_ref().is_some_and(|a| a.deletion.is_some());
                for volume in state.volumes.values().filter(|_| deleted) {
                    if volume.phase == VolumePhase::Ready {
                        steps.retain(|s| s.volume() != &volume.uid);
                        steps.push(Step::Delete {
                            volume: volume.uid.clone(),
                        });
                    }
                }
            }
            Self::AttachBeforeDetach => {
                let new = |a: &&AttachmentRecord| a.phase == AttachmentPhase::Attaching;
                for attachment in state.attachments.values().filter(new) {
                    let (volume, node) = (attachment.volume.clone(), attachment.node.clone());
                    if matches!(attachment.node_id, NodeId::NotNeeded)
                        || state.volumes[&volume].phase != VolumePhase::Ready
                    {
                        continue;
                    }
                    steps.retain(|s| s.volume() != &volume);
                    steps.push(match attachment.node_id {
                        NodeId::Unknown => Step::Locate { volume, node },
                        _ => Step::Attach { volume, node },
                    });
                }
            }
            _ => {}
        }
    }

    /// A resume that does not wait for the suspend before it.
    pub fn end_suspend(state: &mut State) {
        if let Some(actor) = &mut state.actor
            && actor.phase == ActorPhase::Suspending
            && actor.deletion.is_none()
        {
            actor.phase = ActorPhase::Suspended;
        }
    }

    pub fn after_resume(self, state: &mut State) {
        if self != Self::GenerationKept {
            return;
        }
        for volume in state.volumes.values_mut().filter(|v| v.generation.0 > 1) {
            volume.generation = Generation(1);
        }
        for attachment in state.attachments.values_mut() {
            attachment.generation = Generation(1);
        }
    }

    pub fn after_end(self, state: &mut State) {
        if self != Self::RevokeSkipped {
            return;
        }
        for attachment in state.attachments.values_mut() {
            if attachment.phase == AttachmentPhase::Revoking {
                attachment.phase = AttachmentPhase::Releasing;
            }
        }
    }

    /// After an answer that was lost or no.
    pub fn after_loss(self, state: &mut State, step: &Step) {
        let Some(volume) = state.volumes.get_mut(step.volume()) else {
            return;
        };
        match (self, step) {
            (Self::OtherRequest, Step::Create { .. }) => volume.create.required_bytes += 1,
            (Self::LeftoverForgotten, Step::DetachAgain { .. }) => volume.leftover = None,
            (Self::RecordDroppedEarly, Step::Delete { .. }) => volume.phase = VolumePhase::Gone,
            _ => {}
        }
        settle(state);
    }
}

#[test]
fn ten_planted_bugs_are_found_each_with_its_shortest_history() {
    let bugs = [
        (Bug::DeleteAttached, vec![Broken::DeletedInUse]),
        (Bug::DetachUnreleased, vec![Broken::DetachedInUse]),
        (Bug::GenerationKept, vec![Broken::SameGeneration]),
        (Bug::NoIntent, vec![Broken::NoIntent]),
        (Bug::OtherRequest, vec![Broken::OtherRequest]),
        (Bug::RevokeSkipped, vec![Broken::DetachedInUse]),
        (Bug::LeftoverForgotten, vec![Broken::Leak]),
        (Bug::FenceUnconfirmed, vec![Broken::DetachedInUse]),
        // What was under way is not in the new records.
        (
            Bug::AttachBeforeDetach,
            vec![Broken::TwoNodes, Broken::NoIntent],
        ),
        (Bug::RecordDroppedEarly, vec![Broken::Leak]),
    ];
    let left = Budget {
        verbs: 3,
        deaths: 0,
        lost: 2,
        nodes: 1,
    };
    let mut missed = Vec::new();
    for (bug, expected) in bugs {
        let found = search(&Sim::new(1, true, left, Some(bug)), Order::Depth);
        match found.broken {
            Some((broken, history)) if expected.contains(&broken) => {
                println!(
                    "{bug:?}: {broken:?} after {} events: {history:?}",
                    history.len()
                );
            }
            other => missed.push((bug, other)),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
