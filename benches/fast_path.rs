// SPDX-License-Identifier: Apache-2.0
//! What a pod that is not ours costs in the plugin, as a ratio to the floor:
//! looking one key up in the same annotations.
//!
//! `cargo bench --bench fast_path`

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use actor_volumes::api::annotation;

const ROUNDS: usize = 41;
const CALLS: u32 = 20_000;

fn main() {
    let annotations: BTreeMap<String, String> = (0..40)
        .map(|i| (format!("example.com/key-{i}"), "x".repeat(200)))
        .collect();
    let mut floor = Vec::new();
    let mut ours = Vec::new();
    // In turns, so that a noisy machine is noisy to both.
    for _ in 0..ROUNDS {
        floor.push(time(|| {
            black_box(black_box(&annotations).get("example.com/absent"));
        }));
        ours.push(time(|| {
            let read = annotation::read(black_box(&annotations));
            assert!(black_box(read).is_ok_and(|found| found.is_none()));
        }));
    }
    let (floor, ours) = (median(floor), median(ours));
    println!(
        "annotations of a foreign pod: {ours:?} a call, {:.1} times one look-up ({floor:?})",
        ours.as_secs_f64() / floor.as_secs_f64()
    );
}

fn time(call: impl Fn()) -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed() / CALLS
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
