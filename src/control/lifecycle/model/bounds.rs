// SPDX-License-Identifier: Apache-2.0
//! How far the search goes.

use std::time::Instant;

use super::{
    op::Budget,
    search::{Order, search},
    sim::Sim,
};

/// The most memory that this process ever had.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}

fn exhaust(volumes: usize, attaches: bool, left: Budget) {
    let began = Instant::now();
    let found = search(&Sim::new(volumes, attaches, left, None), Order::Cost);
    println!(
        "{volumes} volumes, 2 nodes, attaches: {attaches}, {left:?}: {} states, looked at {} times, depth {}, {}, {:.1} s, peak memory {}",
        found.states,
        found.looked,
        found.depth,
        if found.frontier == 0 {
            "frontier empty".to_owned()
        } else {
            format!("frontier {}", found.frontier)
        },
        began.elapsed().as_secs_f32(),
        peak()
    );
    assert!(found.broken.is_none(), "{:?}", found.broken);
    assert_eq!(found.frontier, 0);
}

/// One death of the control plane, two answers lost or no, one node lost.
fn left(verbs: &str, default: u32) -> Budget {
    let asked = std::env::var(verbs).ok();
    Budget {
        verbs: asked.map_or(default, |n| n.parse().expect("a number of verbs")),
        deaths: 1,
        lost: 2,
        nodes: 1,
    }
}

#[test]
fn one_volume_keeps_the_invariants_in_every_history() {
    exhaust(1, true, left("AV_SEARCH_VERBS_ONE", 3));
    exhaust(1, false, left("AV_SEARCH_VERBS_ONE", 3));
}

#[test]
fn two_volumes_keep_the_invariants_in_every_history() {
    exhaust(2, true, left("AV_SEARCH_VERBS_TWO", 2));
    exhaust(2, false, left("AV_SEARCH_VERBS_TWO", 2));
}
