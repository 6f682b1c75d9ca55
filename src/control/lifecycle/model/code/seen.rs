// SPDX-License-Identifier: Apache-2.0
//! What an actor, and through it the other volume, sees of a volume.

use super::{
    super::super::{ActorPhase, AttachmentPhase, VolumePhase},
    Attachment, Local,
};

/// What an actor sees of a volume, in bits that are only compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// By what happens to the other volume alone.
    pub alone: u32,
    /// By what happens to both.
    pub together: u32,
}

impl Local {
    /// What of a volume moves its actor, or would after a verb or a fence: the
    /// other volume and the actor see no more of it. By the phase of the actor.
    pub fn seen(&self, phase: Option<ActorPhase>) -> Seen {
        let is = |p: VolumePhase| self.phase == 1 + p as u8;
        let there = self.phase != 0;
        let attachments = || self.at.iter().filter_map(|at| at.attachment.as_ref());
        let attached = attachments().next().is_some();
        let ready = is(VolumePhase::Ready)
            && attachments().any(|a| a.phase == AttachmentPhase::Attached as u8);
        // What was attached is detached without its node.
        let undone = |a: &Attachment| a.sent && a.node_id == 2;
        let ends = attachments().any(|a| if a.fenced { undone(a) } else { self.known });
        let dropped = is(VolumePhase::Intent) || (is(VolumePhase::Failed) && !self.unsure);
        let stopped = self.stopped || attachments().any(|a| a.stopped);
        let fenced = |n: usize| {
            let here = self.at[n].attachment.as_ref();
            let there = self.at[1 - n].attachment.is_some();
            there || here.is_some_and(|a| a.phase < AttachmentPhase::Revoking as u8 || undone(a))
        };
        let bits = |all: &[bool]| all.iter().fold(0, |bits, bit| bits << 1 | u32::from(*bit));
        match phase {
            None | Some(ActorPhase::Resumed) => Seen {
                alone: 0,
                together: bits(&[there, ends]),
            },
            Some(ActorPhase::Suspended) => Seen {
                alone: 0,
                together: bits(&[there, dropped, attached]),
            },
            Some(ActorPhase::Resuming) => Seen {
                alone: bits(&[there && !ready]),
                together: bits(&[there, dropped, attached, ready, ends, stopped]),
            },
            Some(ActorPhase::Suspending) => Seen {
                alone: bits(&[attached]),
                together: bits(&[there, dropped, attached, fenced(0), fenced(1)]),
            },
            Some(ActorPhase::Deleting) => Seen {
                alone: bits(&[there, attached]),
                together: bits(&[there, attached]),
            },
        }
    }
}
