// SPDX-License-Identifier: Apache-2.0
//! Short histories, many of them: one actor each, with faults at its calls and
//! kills of the house in its midst, each in a house of its own.
//!
//! `AV_SEED=<n>` repeats the choices, `AV_LONG=1` runs ten times as many.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    converge::{TellSeed, number},
    house::House,
    life::Life,
    trouble::{self, Rate},
};

const HISTORIES: u64 = 208;
const AT_A_TIME: u64 = 8;
const VERBS: usize = 12;

/// Of one history: how many calls the driver had, and how many kills there were.
async fn live(seed: u64) -> (usize, usize) {
    let _told = TellSeed(seed);
    let house = Arc::new(House::start(Duration::from_millis(500)).await);
    let calm = CancellationToken::new();
    let rate = Rate {
        kill: 5 + u32::try_from(seed % 7).unwrap_or_default(),
        restart: 17,
    };
    let trouble = tokio::spawn(trouble::make(house.clone(), seed, rate, calm.clone()));
    let life = Life::new(house.clone(), 0, seed).run(VERBS).await;
    calm.cancel();
    trouble.await.unwrap();
    house.driver.lock().await.clear_faults();
    let mut kept = life.end(seed.is_multiple_of(2)).await;
    kept.sort();
    house.until_at_rest(&kept).await;
    let driver = house.driver.lock().await;
    assert_eq!(driver.violations(), Vec::<String>::new());
    let calls = driver.calls().len();
    drop(driver);
    house.stop().await;
    (calls, house.kills.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs root: run by make test"]
async fn every_history_ends_as_it_was_asked_to_whatever_fails_on_the_way() {
    let one = number("AV_SEED");
    let first = one.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let long = std::env::var("AV_LONG").is_ok_and(|v| !v.is_empty());
    let histories = match (one, long) {
        (Some(_), _) => 1,
        (None, true) => HISTORIES * 10,
        (None, false) => HISTORIES,
    };
    println!("{histories} histories, seeds from {first}");
    let (mut calls, mut kills, mut next) = (0, 0, 0);
    let mut running = JoinSet::new();
    while next < histories || !running.is_empty() {
        while next < histories && running.len() < AT_A_TIME as usize {
            running.spawn(live(first + next));
            next += 1;
        }
        let (c, k) = running.join_next().await.unwrap().unwrap();
        calls += c;
        kills += k;
    }
    println!("{histories} histories: {calls} calls, {kills} kills");
    assert!(calls > 0, "nothing happened");
}
