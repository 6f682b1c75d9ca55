// SPDX-License-Identifier: Apache-2.0
//! Every history within the bounds, on two threads.
//!
//! A state is not followed again with a budget that is nowhere larger than one
//! with which it was reached: whatever can happen then can happen in those
//! histories too, and no judge looks at the budget.

use std::collections::HashSet;

use super::{
    code::Code,
    op::{Budget, Op},
    sim::Sim,
    table::{Map, Pair, Table},
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
    key: u128,
    budget: u8,
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
        let all = most.within();
        assert!(all.len() <= 128, "a word has a bit for each budget");
        let within = |large: &Budget| {
            let bits = all.iter().enumerate().filter(|(_, b)| b.is_within(large));
            bits.fold(0, |word, (at, _)| word | 1 << at)
        };
        let within = all.iter().map(within).collect();
        Self { all, within }
    }

    fn number(&self, budget: Budget) -> usize {
        let most = self.all[self.all.len() - 1];
        let at = budget.verbs * (most.deaths + 1) + budget.deaths;
        let at = at * (most.lost + 1) + budget.lost;
        (at * (most.nodes + 1) + budget.nodes) as usize
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

/// Of each state the budgets that were covered.
type Visited = Map<u128>;

#[derive(Default)]
struct Part {
    visited: Visited,
    /// The way to each state: the one before it, and itself.
    ways: Vec<(u32, u128)>,
}

fn part_of(key: u128) -> usize {
    let [one, two] = [key as u64, (key >> 32) as u64];
    ((one ^ two).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % PARTS
}

/// Follows every history from there, until one breaks an invariant.
pub fn search(start: &Sim, order: Order) -> Found {
    explore(start, order, &Table::new(start)).0
}

/// Every state that is reached, with every budget that may be left there.
pub fn reached(start: &Sim, order: Order) -> HashSet<(Code, Budget)> {
    let table = Table::new(start);
    let (found, parts) = explore(start, order, &table);
    assert!(found.broken.is_none(), "{:?}", found.broken);
    let budgets = Budgets::new(start.left).all;
    let mut all = HashSet::new();
    for (key, covered) in parts.iter().flat_map(|p| &p.visited) {
        let code = table.code(Pair::of_key(*key)).least();
        let left = budgets.iter().enumerate();
        let left = left.filter(|(at, _)| covered >> at & 1 == 1);
        all.extend(left.map(|(_, budget)| (code, *budget)));
    }
    all
}

fn explore(start: &Sim, order: Order, table: &Table<'_>) -> (Found, [Part; PARTS]) {
    let budgets = Budgets::new(start.left);
    let first = Entry {
        key: table.pair(start).key(),
        budget: budgets.number(start.left) as u8,
        depth: 0,
        id: 0,
    };
    let mut parts: [Part; PARTS] = Default::default();
    let mut frontier = insert(&mut parts[part_of(first.key)], vec![first], &budgets);
    let root = frontier[0].id;
    let mut later: Vec<Vec<Entry>> = vec![Vec::new(); start.left.sum() + 1];
    let mut found = Found {
        states: 0,
        looked: 0,
        depth: 0,
        frontier: 0,
        broken: None,
    };
    for bucket in 0..later.len() {
        frontier.append(&mut later[bucket]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for (at, round) in frontier.chunks(ROUND).enumerate() {
                found.looked += round.len();
                let candidates = match round_of(table, round, &parts, &budgets) {
                    Ok(candidates) => candidates,
                    Err((from, broken)) => {
                        found.states = parts.iter().map(|p| p.visited.len()).sum();
                        found.frontier = frontier.len() - at * ROUND;
                        let way = retell(start, table, &parts, root, from, broken);
                        found.broken = Some((broken, way));
                        return (found, parts);
                    }
                };
                for entry in place(&mut parts, candidates, &budgets) {
                    found.depth = found.depth.max(entry.depth.into());
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
    found.states = parts.iter().map(|p| p.visited.len()).sum();
    (found, parts)
}

type Candidates = [Vec<Entry>; PARTS];
type Break = (u32, Broken);

fn round_of(
    table: &Table<'_>,
    round: &[Entry],
    parts: &[Part; PARTS],
    budgets: &Budgets,
) -> Result<Vec<Candidates>, Break> {
    let size = round.len().div_ceil(PARTS);
    std::thread::scope(|scope| {
        let follow = |some| scope.spawn(move || follow(table, some, parts, budgets));
        let tasks: Vec<_> = round.chunks(size).map(follow).collect();
        let results = tasks
            .into_iter()
            .map(|t| t.join().expect("no judge panics"));
        results.collect()
    })
}

fn follow(
    table: &Table<'_>,
    some: &[Entry],
    parts: &[Part; PARTS],
    budgets: &Budgets,
) -> Result<Candidates, Break> {
    let mut found = Candidates::default();
    let covered = |key: u128| parts[part_of(key)].visited.get(&key).copied();
    for entry in some {
        let number = usize::from(entry.budget);
        if budgets.larger(covered(entry.key).unwrap_or_default(), number) {
            continue;
        }
        let next = table.next(Pair::of_key(entry.key));
        let next = next.map_err(|broken| (entry.id, broken))?;
        for (op, outcome) in next {
            let Some(left) = op.pay(budgets.all[number]) else {
                continue;
            };
            let key = outcome.map_err(|broken| (entry.id, broken))?.key();
            let budget = budgets.number(left);
            if covered(key).is_some_and(|c| c >> budget & 1 == 1) {
                continue;
            }
            found[part_of(key)].push(Entry {
                key,
                budget: budget as u8,
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
        let covered = part.visited.entry(entry.key).or_default();
        if *covered >> number & 1 == 1 {
            continue;
        }
        *covered |= budgets.within[number];
        let id = part.ways.len() * PARTS + part_of(entry.key);
        part.ways.push((entry.id, entry.key));
        entry.id = u32::try_from(id).expect("fewer states than that fit in memory");
        new.push(entry);
    }
    new
}

/// The history with the names of its first state: those that stand for others
/// have other names.
fn retell(
    start: &Sim,
    table: &Table<'_>,
    parts: &[Part; PARTS],
    root: u32,
    from: u32,
    broken: Broken,
) -> Vec<Op> {
    let mut states = Vec::new();
    let mut id = from;
    while id != root {
        let (before, key) = parts[id as usize % PARTS].ways[id as usize / PARTS];
        states.push(key);
        id = before;
    }
    let mut named = vec![(start.clone(), Vec::new())];
    // A state is reached by every event that leads to it, whatever it cost.
    for key in states.into_iter().rev() {
        let mut next: Vec<(Sim, Vec<Op>)> = Vec::new();
        for (sim, history) in &named {
            for op in sim.ops() {
                let mut after = sim.clone();
                if after.act(op).is_err() || table.pair(&after).key() != key {
                    continue;
                }
                if next.iter().all(|(other, _)| other.left != after.left) {
                    next.push((after, history.iter().copied().chain([op]).collect()));
                }
            }
        }
        named = next;
    }
    let mut histories = named.into_iter();
    let told = histories.find_map(|(sim, mut history)| {
        if sim.check_rest() == Err(broken) {
            return Some(history);
        }
        let last = sim.ops().into_iter();
        let breaks = |op: &Op| sim.clone().act(*op) == Err(broken);
        history.push(last.into_iter().find(breaks)?);
        Some(history)
    });
    told.expect("a state and the one that stands for it have the same futures")
}
