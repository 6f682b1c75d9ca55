// SPDX-License-Identifier: Apache-2.0
//! Long random histories, and the shortest part of one that breaks an invariant.

use super::{
    op::{Budget, Op},
    sim::Sim,
    world::Broken,
};

const PLENTY: Budget = Budget {
    verbs: u32::MAX,
    deaths: u32::MAX,
    lost: u32::MAX,
    nodes: u32::MAX,
};
/// Events of one history, with at most 14 resumes: the world counts generations
/// in a word.
const LENGTH: usize = 400;

/// Good enough to choose with, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn weight(op: Op) -> usize {
    match op {
        Op::Send(_) | Op::Effect(_) | Op::Answer(_) => 24,
        Op::PodEnds(..) | Op::Back(_) => 12,
        Op::Pod(..) => 8,
        Op::Resume(_) => 6,
        Op::Off(_) | Op::Fence(_) | Op::Lose(_) | Op::Suspend => 3,
        _ => 1,
    }
}

fn start(attaches: bool) -> Sim {
    Sim::new(2, attaches, PLENTY, None)
}

fn choose(sim: &Sim, dice: &mut Dice) -> Option<Op> {
    let generation = |v: &crate::control::record::VolumeRecord| v.generation.0;
    let late = sim.state.volumes.values().map(generation).max() >= Some(14);
    let ops: Vec<_> = sim
        .ops()
        .into_iter()
        .filter(|o| !(late && matches!(o, Op::Resume(_))))
        .collect();
    let sum: usize = ops.iter().map(|o| weight(*o)).sum();
    let mut at = dice.below(sum.max(1));
    ops.into_iter()
        .find(|op| match at.checked_sub(weight(*op)) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
}

/// All faults are over, and the actor is deleted: nothing is left.
fn drain(sim: &mut Sim, taken: &mut Vec<Op>) -> Result<(), Broken> {
    for _ in 0..400 {
        let ops = sim.ops();
        let back = |o: &&Op| matches!(o, Op::Back(_) | Op::PodEnds(..));
        let on = |o: &&Op| matches!(o, Op::Send(_) | Op::Effect(_) | Op::Answer(_));
        let verb = |o: &&Op| match sim.state.actor.as_ref().map(|a| (a.phase, a.deletion)) {
            Some((super::super::ActorPhase::Suspended, _)) => **o == Op::Delete,
            Some((_, None)) => **o == Op::Suspend,
            _ => false,
        };
        let op = ops.iter().find(back).or(ops.iter().find(on));
        let Some(op) = op.or(ops.iter().find(verb)).copied() else {
            let empty = *sim.state == super::super::State::default();
            return if empty { Ok(()) } else { Err(Broken::Stuck) };
        };
        taken.push(op);
        sim.apply(op)?;
        // A suspend that is asked for again and again leads nowhere.
    }
    Err(Broken::Stuck)
}

/// What is broken by these events, those left out that are not possible.
fn replay(attaches: bool, ops: &[Op]) -> Option<Broken> {
    let mut sim = start(attaches);
    for op in ops {
        if sim.ops().contains(op)
            && let Err(broken) = sim.apply(*op)
        {
            return Some(broken);
        }
    }
    drain(&mut sim, &mut Vec::new()).err()
}

/// Leaves out, in ever smaller pieces, whatever is not needed.
fn shrink(attaches: bool, mut ops: Vec<Op>, broken: Broken) -> Vec<Op> {
    let mut size = ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..ops.len().min(at + size));
            if replay(attaches, &fewer) == Some(broken) {
                ops = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    ops
}

/// One history; the number of events, or what broke and how.
fn live(seed: u64) -> Result<usize, (bool, Broken, Vec<Op>)> {
    let mut dice = Dice(seed);
    let attaches = dice.below(4) != 0;
    let mut sim = start(attaches);
    let mut taken = Vec::new();
    for _ in 0..LENGTH {
        let Some(op) = choose(&sim, &mut dice) else {
            break;
        };
        taken.push(op);
        sim.apply(op)
            .map_err(|broken| (attaches, broken, taken.clone()))?;
    }
    let events = taken.len();
    let mut all = taken.clone();
    drain(&mut sim, &mut all).map_err(|broken| (attaches, broken, taken))?;
    Ok(events)
}

#[test]
fn random_events_break_nothing_and_leak_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let wanted = number("AV_MODEL_STEPS").unwrap_or(250_000) as usize;
    let first = number("AV_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |n| n.as_nanos() as u64)
    });
    let one = number("AV_SEED").is_some();
    println!("seeds from {first}");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                let mut events = 0;
                let mut seed = first.wrapping_add(thread);
                while events < wanted.div_ceil(4) {
                    match live(seed) {
                        Ok(more) => events += more.max(1),
                        Err((attaches, broken, ops)) => {
                            let ops = shrink(attaches, ops, broken);
                            panic!("AV_SEED={seed} (again: {one}): {broken:?}, attaches: {attaches}, by {ops:?}");
                        }
                    }
                    seed = seed.wrapping_add(4);
                }
            });
        }
    });
}
