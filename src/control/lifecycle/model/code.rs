// SPDX-License-Identifier: Apache-2.0
//! What two states have in common that lead to the same futures, in a few bytes.
//!
//! Left out, each because no decision looks at it:
//! - times, messages and attempts: in the model every retry is due;
//! - the numbers of generations: they are only compared, so their order is kept;
//! - grants that a mark refuses, and marks below the record's generation: they
//!   refuse no grant of later;
//! - the names of nodes and of volumes: of the four ways to name them the
//!   smallest code is taken. No choice hangs on a name;
//! - which nodes have a mark: only the tombstone of the volume tells it.
//!
//! `reduction.rs` compares all this with a search that leaves nothing out.

mod seen;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::{
    super::*,
    op::Budget,
    records,
    sim::{Call, NODE_IDS, NODES, NOW, Sim, UIDS, index, key, placement},
    world::{Life, Thing, World},
};
use crate::{
    control::record::{Leftover, Opaque},
    model::Generation,
};

/// One volume: its record, what is under way, and what really is. Generations
/// are by rank, 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local {
    /// 0: there is no record.
    phase: u8,
    prepared: bool,
    unsure: bool,
    known: bool,
    bytes: u8,
    stopped: bool,
    generation: u8,
    revoked: u8,
    leftover: Option<(u8, bool)>,
    call: Option<Sent>,
    made: u8,
    newest: u8,
    at: [At; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sent {
    kind: u8,
    node: u8,
    over: u8,
    request: u8,
    happened: Option<bool>,
}

/// One volume on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct At {
    attachment: Option<Attachment>,
    detached: bool,
    attached: bool,
    held: bool,
    /// Whether the record's generation is refused: the node was fenced.
    over: bool,
    /// Grants with which a pod may still start, a bit for each.
    grants: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attachment {
    phase: u8,
    sent: bool,
    lost: bool,
    fenced: bool,
    node_id: u8,
    generation: u8,
    stopped: bool,
}

/// A state without its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    pub context: Context,
    pub volumes: [Local; 2],
}

/// What both volumes see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Context {
    /// Its phase, where it is, and whether it is to be deleted.
    actor: Option<(u8, u8, bool)>,
    nodes: [Life; 2],
}

const VOLUME_PHASES: [VolumePhase; 7] = [
    VolumePhase::Intent,
    VolumePhase::Creating,
    VolumePhase::Ready,
    VolumePhase::Failed,
    VolumePhase::Deleting,
    VolumePhase::Gone,
    VolumePhase::Retained,
];
const ATTACHMENT_PHASES: [AttachmentPhase; 5] = [
    AttachmentPhase::Attaching,
    AttachmentPhase::Attached,
    AttachmentPhase::Revoking,
    AttachmentPhase::Releasing,
    AttachmentPhase::Detaching,
];
const ACTOR_PHASES: [ActorPhase; 5] = [
    ActorPhase::Suspended,
    ActorPhase::Resuming,
    ActorPhase::Resumed,
    ActorPhase::Suspending,
    ActorPhase::Deleting,
];

static ACTOR: LazyLock<ActorRecord> = LazyLock::new(records::actor);
static VOLUMES: LazyLock<[VolumeRecord; 2]> =
    LazyLock::new(|| [1, 2].map(|n| records::volume(n, ReclaimPolicy::Delete, false)));

fn stopped(trouble: &Option<Trouble>) -> bool {
    trouble.as_ref().is_some_and(|t| t.next_try.is_none())
}

fn stop(stopped: bool) -> Option<Trouble> {
    stopped.then(|| Trouble {
        message: String::new(),
        code: 0,
        attempts: 1,
        last_try: NOW,
        next_try: None,
        in_doubt: String::new(),
    })
}

impl Code {
    /// The one of the four that differ in names only which stands for all.
    #[must_use]
    pub fn least(self) -> Self {
        let swapped = Self {
            context: self.context.nodes_swapped(),
            volumes: self.volumes.map(Local::nodes_swapped),
        };
        let mut least = self;
        for code in [self, swapped] {
            let [one, two] = code.volumes;
            let volumes = [one.min(two), one.max(two)];
            least = least.min(Self { volumes, ..code });
        }
        least
    }

    /// The code of a state, with the names that it has.
    pub fn plain(sim: &Sim) -> Self {
        let actor = sim.state.actor.as_ref().map(|actor| {
            let place = actor.placement.as_ref();
            let place = place.map_or(2, |p| index(p.node.as_str()) as u8);
            (actor.phase as u8, place, actor.deletion.is_some())
        });
        Self {
            context: Context {
                actor,
                nodes: sim.world.nodes,
            },
            volumes: [Local::of(sim, 0), Local::of(sim, 1)],
        }
    }

    /// A state with this code, in the same kind of world.
    pub fn expand(&self, left: Budget, like: &Sim) -> Sim {
        let mut state = State {
            actor: self
                .context
                .actor
                .map(|(phase, place, deleted)| ActorRecord {
                    phase: ACTOR_PHASES[usize::from(phase)],
                    placement: (place < 2).then(|| placement(place.into())),
                    deletion: deleted.then_some(NOW),
                    ..ACTOR.clone()
                }),
            volumes: BTreeMap::new(),
            attachments: BTreeMap::new(),
        };
        let mut calls = [None, None];
        let mut world = World::new(like.world.attaches);
        world.nodes = self.context.nodes;
        for (v, local) in self.volumes.iter().enumerate() {
            if local.phase != 0 {
                state.volumes.insert(UIDS[v].clone(), local.record(v));
            }
            for (n, at) in local.at.iter().enumerate() {
                if let Some(a) = &at.attachment {
                    state.attachments.insert(key(v, n), a.record(v, n));
                }
            }
            calls[v] = local.call.map(|call| call.call(v));
            world.things[v] = local.thing();
        }
        Sim {
            state: Arc::new(state),
            world,
            calls,
            left,
            bug: like.bug,
        }
    }
}

impl Context {
    #[must_use]
    pub fn nodes_swapped(mut self) -> Self {
        if let Some((_, place @ (0 | 1), _)) = &mut self.actor {
            *place = 1 - *place;
        }
        self.nodes.swap(0, 1);
        self
    }

    pub fn phase(&self) -> Option<ActorPhase> {
        self.actor
            .map(|(phase, ..)| ACTOR_PHASES[usize::from(phase)])
    }
}

impl Local {
    #[must_use]
    pub fn nodes_swapped(mut self) -> Self {
        self.at.swap(0, 1);
        if let Some((node, _)) = &mut self.leftover {
            *node = 1 - *node;
        }
        if let Some(Sent {
            node: node @ (0 | 1),
            ..
        }) = &mut self.call
        {
            *node = 1 - *node;
        }
        self
    }

    fn of(sim: &Sim, v: usize) -> Self {
        let thing = &sim.world.things[v];
        let record = sim.state.volumes.get(&UIDS[v]);
        let attachments = [0, 1].map(|n| sim.state.attachments.get(&key(v, n)));
        let grants = [0, 1].map(|n| thing.open_grants(n));
        let open = grants[0] | grants[1];
        let generation = record.map_or(0, |r| r.generation.0);
        // Which grant was the newest is asked of older ones, and of the next.
        let newest = if open == 0 && thing.newest < generation {
            0
        } else {
            thing.newest
        };
        let mut compared = open | 1 << generation | 1 << newest;
        for attachment in attachments.iter().flatten() {
            compared |= 1 << attachment.generation.0;
        }
        compared &= !1;
        let rank = |g: u64| (compared & (2 << g.min(62)) - 1).count_ones() as u8;
        let mut local = Self {
            made: thing.made.unwrap_or_default() as u8,
            newest: rank(newest),
            call: sim.calls[v].as_ref().map(|call| Sent::of(call, rank)),
            ..Self::default()
        };
        for n in 0..2 {
            let open = (1..16).filter(|g| grants[n] >> g & 1 == 1);
            local.at[n] = At {
                attachment: attachments[n].map(|a| Attachment::of(a, rank)),
                // It is asked for while the volume may still be ready.
                detached: record.is_some_and(|r| {
                    let over = [VolumePhase::Deleting, VolumePhase::Gone];
                    !over.contains(&r.phase) && r.detached_from.contains(&NODE_IDS[n])
                }),
                attached: thing.attached[n],
                held: thing.held[n] != 0,
                over: generation != 0 && thing.mark[n] >= generation,
                grants: open.fold(0, |bits, g| bits | 1 << rank(g)),
            };
        }
        if let Some(record) = record {
            local.phase = 1 + record.phase as u8;
            // Once it was sent, it is so for good.
            local.prepared = record.prepared && record.phase == VolumePhase::Intent;
            local.unsure = record.unsure;
            local.known = !record.volume_id.is_empty();
            local.bytes = record.create.required_bytes as u8;
            local.stopped = stopped(&record.trouble);
            local.generation = rank(generation);
            local.revoked = rank(record.revoked.0);
            let leftover = record.leftover.as_ref();
            local.leftover = leftover.map(|l| (index(&l.node_id) as u8, l.sent));
        }
        local
    }

    fn record(&self, v: usize) -> VolumeRecord {
        let here = |is: fn(&At) -> bool| (0..2).filter(move |n| is(&self.at[*n]));
        let mut record = VolumeRecord {
            prepared: self.prepared,
            phase: VOLUME_PHASES[usize::from(self.phase) - 1],
            unsure: self.unsure,
            detached_from: here(|at| at.detached)
                .map(|n| NODE_IDS[n].clone())
                .collect(),
            leftover: self.leftover.map(|(n, sent)| Leftover {
                node_id: NODE_IDS[usize::from(n)].clone(),
                sent,
                trouble: None,
            }),
            generation: Generation(self.generation.into()),
            revoked: Generation(self.revoked.into()),
            nodes: Default::default(),
            trouble: stop(self.stopped),
            ..VOLUMES[v].clone()
        };
        record.create.required_bytes = self.bytes.into();
        if self.known {
            record.volume_id = format!("id-{}", record.uid);
        }
        record
    }

    fn thing(&self) -> Thing {
        Thing {
            made: (self.made != 0).then(|| self.made.into()),
            attached: self.at.map(|at| at.attached),
            held: self.at.map(|at| at.held.into()),
            mark: self
                .at
                .map(|at| if at.over { self.generation.into() } else { 0 }),
            granted: self.at.map(|at| at.grants.into()),
            newest: self.newest.into(),
        }
    }
}

impl Attachment {
    fn of(record: &AttachmentRecord, rank: impl Fn(u64) -> u8) -> Self {
        Self {
            phase: record.phase as u8,
            sent: record.sent,
            lost: record.lost,
            fenced: record.fenced,
            node_id: match record.node_id {
                NodeId::Unknown => 0,
                NodeId::NotNeeded => 1,
                NodeId::Known(_) => 2,
            },
            generation: rank(record.generation.0),
            stopped: stopped(&record.trouble),
        }
    }

    fn record(&self, v: usize, n: usize) -> AttachmentRecord {
        AttachmentRecord {
            volume: UIDS[v].clone(),
            node: NODES[n].clone(),
            node_id: match self.node_id {
                0 => NodeId::Unknown,
                1 => NodeId::NotNeeded,
                _ => NodeId::Known(NODE_IDS[n].clone()),
            },
            publish_context: Opaque::default(),
            phase: ATTACHMENT_PHASES[usize::from(self.phase)],
            sent: self.sent,
            lost: self.lost,
            fenced: self.fenced,
            generation: Generation(self.generation.into()),
            trouble: stop(self.stopped),
        }
    }
}

impl Sent {
    fn of(call: &Call, rank: impl Fn(u64) -> u8) -> Self {
        let (kind, node, over) = match &call.step {
            Step::Prepare { .. } => (0, None, 0),
            Step::Create { .. } => (1, None, 0),
            Step::Locate { node, .. } => (2, Some(node), 0),
            Step::Attach { node, .. } => (3, Some(node), 0),
            Step::Revoke {
                node, generation, ..
            } => (4, Some(node), generation.0),
            Step::AwaitRelease { node, .. } => (5, Some(node), 0),
            Step::Detach { node, .. } => (6, Some(node), 0),
            Step::DetachAgain { .. } => (7, None, 0),
            Step::Delete { .. } => (8, None, 0),
            Step::Expand { .. } | Step::ExpandNode { .. } => panic!("nothing grows here"),
        };
        Self {
            kind,
            node: node.map_or(2, |n| index(n.as_str()) as u8),
            over: rank(over),
            // Of CreateVolume alone it is looked at.
            request: if kind == 1 { call.request as u8 } else { 0 },
            happened: call.happened,
        }
    }

    fn call(&self, v: usize) -> Call {
        let volume = UIDS[v].clone();
        let node = || NODES[usize::from(self.node)].clone();
        Call {
            step: match self.kind {
                0 => Step::Prepare { volume },
                1 => Step::Create { volume },
                2 => Step::Locate {
                    volume,
                    node: node(),
                },
                3 => Step::Attach {
                    volume,
                    node: node(),
                },
                4 => Step::Revoke {
                    volume,
                    node: node(),
                    generation: Generation(self.over.into()),
                },
                5 => Step::AwaitRelease {
                    volume,
                    node: node(),
                },
                6 => Step::Detach {
                    volume,
                    node: node(),
                },
                7 => Step::DetachAgain { volume },
                _ => Step::Delete { volume },
            },
            request: self.request.into(),
            happened: self.happened,
        }
    }
}
