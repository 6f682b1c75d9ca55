// SPDX-License-Identifier: Apache-2.0
//! Every history within the bounds, on two threads.
//!
//! A state is not followed again with a budget that is nowhere larger than one
//! with which it was reached: whatever can happen then can happen in those
//! histories too, and no judge looks at the budget.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    code::Code,
    op::{Budget, Op},
    sim::Sim,
    world::Broken,
};

/// Threads, and parts of what was visited: each has one of its own.
const PARTS: usize = 2;
/// States that are looked at before what was found is put in its place.
const ROUND: usize = 1 << 18;

/// Which states are looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those that are reached by fewer events: what breaks is found by the
    /// shortest history.
    Depth,
    /// Those that cost less: none is ever looked at again with a larger budget.
    Cost,
}

pub struct Found {
    /// States apart from their budget.
    pub states: usize,
    /// With their budgets: as often as states were looked at.
    pub looked: usize,
    /// Of the longest history that was followed.
    pub depth: usize,
    /// How many were still to be looked at when it ended.
    pub frontier: usize,
    /// What was broken, and the way there.
    pub broken: Option<(Broken, Vec<Op>)>,
}

#[derive(Clone)]
struct Entry {
    code: Code,
    print: u128,
    budget: u8,
    op: Op,
    depth: u16,
    /// Its own number; of a candidate, that of the state before it.
    id: u32,
}

/// The budgets within the bounds by number, and which are nowhere larger.
struct Budgets {
    all: Vec<Budget>,
    within: Vec<u128>,
}

impl Budgets {
    fn new(most: Budget) -> Self {
        let mut all = Vec::new();
        for verbs in 0..=most.verbs {
            for deaths in 0..=most.deaths {
                for lost in 0..=most.lost {
                    all.extend((0..=most.nodes).map(|nodes| Budget {
                        verbs,
                        deaths,
                        lost,
                        nodes,
                    }));
                }
            }
        }
        assert!(all.len() <= 128, "a word has a bit for each budget");
        let within = |large: &Budget| {
            let bits = all.iter().enumerate().filter(|(_, b)| b.is_within(large));
            bits.fold(0, |word, (at, _)| word | 1 << at)
        };
        let within = all.iter().map(within).collect();
        Self { all, within }
    }

    fn number(&self, budget: Budget) -> usize {
        let at = self.all.iter().position(|b| *b == budget);
        at.expect("nothing gives budget back")
    }

    /// Whether a larger one is among these.
    fn larger(&self, among: u128, than: usize) -> bool {
        let mut left = among & !(1 << than);
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            if self.within[at] >> than & 1 == 1 {
                return true;
            }
            left &= left - 1;
        }
        false
    }
}

/// A fingerprint is as good a hash as any.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64 ^ (n >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Of each state the budgets that were covered.
type Visited = HashMap<u128, u128, BuildHasherDefault<Low>>;

#[derive(Default)]
struct Part {
    visited: Visited,
    /// The way to each state: the one before it, and what happened.
    parents: Vec<(u32, Op)>,
}

fn part_of(print: u128) -> usize {
    (print >> 64) as usize % PARTS
}

/// Follows every history from there, until one breaks an invariant.
pub fn search(start: &Sim, order: Order) -> Found {
    let budgets = Budgets::new(start.left);
    let code = Code::of(start);
    let first = Entry {
        print: code.fingerprint(),
        code,
        budget: budgets.number(start.left) as u8,
        op: Op::Die,
        depth: 0,
        id: 0,
    };
    let mut parts: [Part; PARTS] = Default::default();
    let mut frontier = Vec::new();
    let mut later: Vec<Vec<Entry>> = vec![Vec::new(); start.left.sum() + 1];
    let mut depth = 0;
    let mut looked = 0;
    frontier.extend(insert(
        &mut parts[part_of(first.print)],
        vec![first],
        &budgets,
    ));
    let root = frontier[0].id;
    for bucket in 0..later.len() {
        frontier.append(&mut later[bucket]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            let waiting = frontier.len();
            for (at, round) in frontier.chunks(ROUND).enumerate() {
                looked += round.len();
                let found = match round_of(start, round, &parts, &budgets) {
                    Ok(found) => found,
                    Err((from, op, broken)) => {
                        let ways = [&parts[0].parents, &parts[1].parents];
                        return Found {
                            states: parts.iter().map(|p| p.visited.len()).sum(),
                            looked,
                            depth: depth + 1,
                            frontier: waiting - at * ROUND,
                            broken: Some((broken, retell(start, &ways, root, from, op))),
                        };
                    }
                };
                for entry in place(&mut parts, found, &budgets) {
                    depth = depth.max(entry.depth.into());
                    let left = budgets.all[usize::from(entry.budget)].sum();
                    let cost = start.left.sum() - left;
                    if order == Order::Cost && cost > bucket {
                        later[cost].push(entry);
                    } else {
                        next.push(entry);
                    }
                }
            }
            frontier = next;
        }
    }
    Found {
        states: parts.iter().map(|p| p.visited.len()).sum(),
        looked,
        depth,
        frontier: 0,
        broken: None,
    }
}

type Candidates = [Vec<Entry>; PARTS];
type Break = (u32, Op, Broken);

fn round_of(
    start: &Sim,
    round: &[Entry],
    parts: &[Part; PARTS],
    budgets: &Budgets,
) -> Result<Vec<Candidates>, Break> {
    let size = round.len().div_ceil(PARTS);
    std::thread::scope(|scope| {
        let expand = |some| scope.spawn(move || follow(start, some, parts, budgets));
        let tasks: Vec<_> = round.chunks(size).map(expand).collect();
        let results = tasks
            .into_iter()
            .map(|t| t.join().expect("no judge panics"));
        results.collect()
    })
}

fn follow(
    start: &Sim,
    some: &[Entry],
    parts: &[Part; PARTS],
    budgets: &Budgets,
) -> Result<Candidates, Break> {
    let mut found = Candidates::default();
    let covered = |print: u128| parts[part_of(print)].visited.get(&print).copied();
    for entry in some {
        let number = usize::from(entry.budget);
        if budgets.larger(covered(entry.print).unwrap_or_default(), number) {
            continue;
        }
        let sim = entry.code.expand(budgets.all[number], start);
        for op in sim.ops() {
            let mut next = sim.clone();
            next.apply(op).map_err(|broken| (entry.id, op, broken))?;
            let code = Code::of(&next);
            let print = code.fingerprint();
            let budget = budgets.number(next.left);
            if covered(print).is_some_and(|c| c >> budget & 1 == 1) {
                continue;
            }
            found[part_of(print)].push(Entry {
                code,
                print,
                budget: budget as u8,
                op,
                depth: entry.depth + 1,
                id: entry.id,
            });
        }
    }
    Ok(found)
}

/// Puts what was found where it belongs; what is new comes back.
fn place(parts: &mut [Part; PARTS], found: Vec<Candidates>, budgets: &Budgets) -> Vec<Entry> {
    let mut mine: [Vec<Entry>; PARTS] = Default::default();
    for candidates in found {
        for (all, some) in mine.iter_mut().zip(candidates) {
            all.extend(some);
        }
    }
    std::thread::scope(|scope| {
        let tasks: Vec<_> = parts
            .iter_mut()
            .zip(mine)
            .map(|(part, mine)| scope.spawn(|| insert(part, mine, budgets)))
            .collect();
        let new = tasks.into_iter().map(|t| t.join().expect("it only counts"));
        new.flatten().collect()
    })
}

fn insert(part: &mut Part, candidates: Vec<Entry>, budgets: &Budgets) -> Vec<Entry> {
    let mut new = Vec::new();
    for mut entry in candidates {
        let number = usize::from(entry.budget);
        let covered = part.visited.entry(entry.print).or_default();
        if *covered >> number & 1 == 1 {
            continue;
        }
        *covered |= budgets.within[number];
        let id = part.parents.len() * PARTS + part_of(entry.print);
        part.parents.push((entry.id, entry.op));
        entry.id = u32::try_from(id).expect("fewer states than that fit in memory");
        new.push(entry);
    }
    new
}

/// The history with the names of its first state: codes have other names.
fn retell(start: &Sim, ways: &[&Vec<(u32, Op)>; PARTS], root: u32, from: u32, last: Op) -> Vec<Op> {
    let mut coded = vec![last];
    let mut id = from;
    while id != root {
        let (before, op) = ways[id as usize % PARTS][id as usize / PARTS];
        coded.push(op);
        id = before;
    }
    let run = |sim: &Sim, op: Op| {
        let mut next = sim.clone();
        let broken = next.apply(op).err();
        (broken, broken.is_none().then(|| Code::of(&next)), next)
    };
    let mut named = start.clone();
    let mut history = Vec::new();
    for op in coded.into_iter().rev() {
        let canonical = Code::of(&named).expand(named.left, start);
        let (broken, code, _) = run(&canonical, op);
        let same = |o: &Op| {
            let (b, c, _) = run(&named, *o);
            (b, c) == (broken, code) && o.pay(named.left) == op.pay(named.left)
        };
        let op = named.ops().into_iter().find(same);
        let op = op.unwrap_or_else(|| {
            panic!(
                "{op:?} ({broken:?}) of {canonical:?} is not possible in {named:?}, by {history:?}"
            )
        });
        history.push(op);
        named = run(&named, op).2;
    }
    history
}
