// SPDX-License-Identifier: Apache-2.0
//! Whether the search leaves out too much: within small bounds it is compared
//! with one that keeps whole states apart by all that is in them.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{
    bugs::Bug,
    code::Code,
    op::Budget,
    search::{Order, reached, search},
    sim::{NOW, Sim},
    world::Broken,
};

/// All that is in a state, but for what counts up without end: the tries that
/// failed, and so the pause after them.
fn print(sim: &Sim) -> u128 {
    let mut sim = sim.clone();
    let state = Arc::make_mut(&mut sim.state);
    let volumes = state.volumes.values_mut().flat_map(|v| {
        let leftover = v.leftover.as_mut().map(|l| &mut l.trouble);
        leftover.into_iter().chain([&mut v.trouble])
    });
    let attachments = state.attachments.values_mut().map(|a| &mut a.trouble);
    for trouble in volumes.chain(attachments).flatten() {
        trouble.attempts = 1;
        trouble.next_try = trouble.next_try.map(|_| NOW);
    }
    let text = format!("{sim:?}");
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, &text).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(0)) << 64 | u128::from(half(1))
}

/// Breadth first through every history; what broke, and after how many events.
fn plainly(start: Sim) -> Result<HashSet<(Code, Budget)>, (Broken, usize)> {
    let mut seen = HashSet::from([print(&start)]);
    let mut codes = HashSet::from([(Code::plain(&start).least(), start.left)]);
    let mut frontier = vec![start];
    let mut depth = 0;
    while !frontier.is_empty() {
        depth += 1;
        let mut next = Vec::new();
        for sim in &frontier {
            for op in sim.ops() {
                let mut after = sim.clone();
                after.apply(op).map_err(|broken| (broken, depth))?;
                if seen.insert(print(&after)) {
                    codes.insert((Code::plain(&after).least(), after.left));
                    next.push(after);
                }
            }
        }
        frontier = next;
    }
    Ok(codes)
}

/// What may be left where that much is left.
fn with_less(codes: HashSet<(Code, Budget)>) -> HashSet<(Code, Budget)> {
    let mut most: HashMap<Code, Vec<Budget>> = HashMap::new();
    for (code, budget) in codes {
        most.entry(code).or_default().push(budget);
    }
    let less = most.into_iter().flat_map(|(code, budgets)| {
        let all: HashSet<_> = budgets.iter().flat_map(Budget::within).collect();
        all.into_iter().map(move |budget| (code, budget))
    });
    less.collect()
}

fn budget(verbs: u32, deaths: u32, lost: u32, nodes: u32) -> Budget {
    Budget {
        verbs,
        deaths,
        lost,
        nodes,
    }
}

#[test]
fn the_search_reaches_what_a_plain_one_reaches() {
    let small = [
        (1, true, budget(2, 1, 1, 0)),
        (1, true, budget(2, 0, 0, 1)),
        (1, false, budget(2, 0, 1, 1)),
        (2, true, budget(1, 0, 0, 0)),
    ];
    let long = [
        (1, true, budget(3, 1, 2, 1)),
        (2, true, budget(2, 0, 1, 0)),
        (2, true, budget(1, 1, 1, 1)),
    ];
    let also = std::env::var_os("AV_SEARCH_PLAIN").map_or(&[][..], |_| &long[..]);
    for &(volumes, attaches, left) in small.iter().chain(also) {
        let start = Sim::new(volumes, attaches, left, None);
        let plain = plainly(start.clone()).map(with_less);
        let plain = plain.expect("nothing breaks");
        for order in [Order::Depth, Order::Cost] {
            let reduced = reached(&start, order);
            println!(
                "{volumes} volumes, {left:?}, {order:?}: {} states with budgets",
                plain.len()
            );
            let missed = plain.difference(&reduced).next();
            let made_up = reduced.difference(&plain).next();
            assert_eq!((missed, made_up), (None, None));
        }
    }
}

#[test]
fn the_search_finds_a_planted_bug_as_soon_as_a_plain_one() {
    // What each needs; what needs more takes a plain search too long.
    let small = [
        (Bug::NoIntent, budget(1, 0, 0, 0)),
        (Bug::OtherRequest, budget(1, 0, 1, 0)),
        (Bug::RecordDroppedEarly, budget(1, 0, 1, 0)),
        (Bug::AttachBeforeDetach, budget(3, 0, 0, 0)),
        (Bug::DeleteAttached, budget(3, 0, 0, 0)),
        (Bug::FenceUnconfirmed, budget(2, 0, 0, 0)),
        (Bug::RevokeSkipped, budget(2, 0, 0, 0)),
        (Bug::DetachUnreleased, budget(2, 0, 0, 0)),
        (Bug::GenerationKept, budget(3, 0, 0, 0)),
        (Bug::LeftoverForgotten, budget(2, 0, 2, 0)),
    ];
    for (bug, left) in small {
        let start = Sim::new(1, true, left, Some(bug));
        let found = search(&start, Order::Depth).broken;
        let found = found.map(|(broken, history)| (broken, history.len()));
        assert_eq!(found, plainly(start).err(), "{bug:?}");
    }
}
