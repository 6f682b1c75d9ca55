// SPDX-License-Identifier: Apache-2.0
//! Breadth first through every history within the bounds.

use std::{collections::HashSet, time::Instant};

use super::{
    op::{Budget, Op},
    sim::Sim,
    world::Broken,
};

pub struct Found {
    pub states: usize,
    pub depth: usize,
    /// How many were still to be looked at when it ended.
    pub frontier: usize,
    /// What was broken, and the shortest way there.
    pub broken: Option<(Broken, Vec<Op>)>,
}

type Next = (u32, Op, u128, Sim);

/// Follows every history from there, until one breaks an invariant.
pub fn search(start: Sim) -> Found {
    let mut visited = HashSet::from([start.fingerprint()]);
    // The way to each state: the one before it, and what happened.
    let mut parents: Vec<(u32, Op)> = vec![(0, Op::Die)];
    let mut frontier = vec![(0u32, start)];
    let mut depth = 0;
    while !frontier.is_empty() {
        let size = frontier.len().div_ceil(8);
        let seen = &visited;
        let parts: Vec<_> = std::thread::scope(|scope| {
            let parts = frontier.chunks(size);
            let tasks: Vec<_> = parts
                .map(|part| scope.spawn(move || expand(part, seen)))
                .collect();
            let results = tasks
                .into_iter()
                .map(|t| t.join().expect("no judge panics"));
            results.collect()
        });
        let mut next = Vec::new();
        for part in parts {
            match part {
                Err((from, op, broken)) => {
                    return Found {
                        states: visited.len(),
                        depth: depth + 1,
                        frontier: frontier.len(),
                        broken: Some((broken, history(&parents, from, op))),
                    };
                }
                Ok(part) => {
                    for (from, op, print, sim) in part {
                        if visited.insert(print) {
                            next.push((parents.len() as u32, sim));
                            parents.push((from, op));
                        }
                    }
                }
            }
        }
        frontier = next;
        depth += usize::from(!frontier.is_empty());
    }
    Found {
        states: visited.len(),
        depth,
        frontier: 0,
        broken: None,
    }
}

fn expand(part: &[(u32, Sim)], seen: &HashSet<u128>) -> Result<Vec<Next>, (u32, Op, Broken)> {
    let mut found = Vec::new();
    let mut mine = HashSet::new();
    for (id, sim) in part {
        for op in sim.ops() {
            let mut next = sim.clone();
            next.apply(op).map_err(|broken| (*id, op, broken))?;
            let print = next.fingerprint();
            if !seen.contains(&print) && mine.insert(print) {
                found.push((*id, op, print, next));
            }
        }
    }
    Ok(found)
}

fn history(parents: &[(u32, Op)], mut from: u32, last: Op) -> Vec<Op> {
    let mut ops = vec![last];
    while from != 0 {
        let (before, op) = parents[from as usize];
        ops.push(op);
        from = before;
    }
    ops.reverse();
    ops
}

fn exhaust(what: &str, volumes: usize, attaches: bool, left: Budget) {
    let began = Instant::now();
    let found = search(Sim::new(volumes, attaches, left, None));
    println!(
        "{what}: {volumes} volumes, attaches: {attaches}, {left:?}: {} states, depth {}, frontier {} after {:?}",
        found.states,
        found.depth,
        found.frontier,
        began.elapsed()
    );
    assert!(found.broken.is_none(), "{:?}", found.broken);
    assert_eq!(found.frontier, 0);
}

#[test]
fn one_volume_keeps_the_invariants_in_every_history() {
    let left = Budget {
        verbs: verbs("AV_SEARCH_VERBS_ONE", 3),
        deaths: 1,
        lost: 2,
        nodes: 1,
    };
    exhaust("one volume", 1, true, left);
    exhaust("one volume", 1, false, left);
}

#[test]
fn two_volumes_keep_the_invariants_in_every_history() {
    let left = Budget {
        verbs: verbs("AV_SEARCH_VERBS_TWO", 2),
        deaths: 1,
        lost: 1,
        nodes: 0,
    };
    exhaust("two volumes", 2, true, left);
}

fn verbs(name: &str, default: u32) -> u32 {
    let asked = std::env::var(name).ok();
    asked.map_or(default, |n| n.parse().expect("a number of verbs"))
}
