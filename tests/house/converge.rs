// SPDX-License-Identifier: Apache-2.0
//! A randomised run of the whole house over real mounts: control plane, node
//! agent and a driver that fails, loses answers, hangs and is restarted at every
//! call, while the house itself is killed again and again. At the end everything
//! is exactly what was asked for, and the driver saw no rule of CSI broken.
//!
//! `AV_SEED=<n>` repeats a run's choices, `AV_LONG=1` makes it ten times longer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    house::House,
    life::Life,
    trouble::{self, Rate},
};

const ACTORS: usize = 24;
const OPERATIONS: usize = 2_000;

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root: run by make test"]
async fn whatever_fails_all_converges_to_what_was_asked() {
    let seed = number("AV_SEED").unwrap_or_else(|| fastrand::u64(..));
    let long = std::env::var("AV_LONG").is_ok_and(|v| !v.is_empty());
    let operations = OPERATIONS * if long { 10 } else { 1 };
    println!("seed {seed}: AV_SEED={seed} repeats the choices of this run");
    let _told = TellSeed(seed);

    let house = Arc::new(House::start(Duration::from_secs(1)).await);
    let calm = CancellationToken::new();
    let rate = Rate {
        kill: 60,
        restart: 85,
    };
    let trouble = tokio::spawn(trouble::make(house.clone(), seed, rate, calm.clone()));
    let mut lives = Vec::new();
    for n in 0..ACTORS {
        let life = Life::new(house.clone(), n, seed);
        lives.push(tokio::spawn(life.run(operations / ACTORS)));
    }
    let mut kept = Vec::new();
    let mut done = Vec::new();
    for life in lives {
        done.push(life.await.unwrap());
    }
    calm.cancel();
    trouble.await.unwrap();
    house.driver.lock().await.clear_faults();

    // With nothing failing any more: half of the actors go, the others keep
    // their data.
    let mut endings = Vec::new();
    for (n, life) in done.into_iter().enumerate() {
        endings.push(tokio::spawn(life.end(n % 2 == 0)));
    }
    for ending in endings {
        kept.extend(ending.await.unwrap());
    }
    kept.sort();
    house.until_at_rest(&kept).await;
    let driver = house.driver.lock().await;
    assert_eq!(driver.violations(), Vec::<String>::new());
    let (calls, kills) = (driver.calls().len(), house.kills.load(Ordering::Relaxed));
    drop(driver);
    house.stop().await;
    println!(
        "{operations} operations, {calls} calls, {kills} kills of the house, {} volumes kept",
        kept.len()
    );
    assert!(kills > 0 && calls > operations, "too little happened");
}

/// Says the seed once more where the failure is read.
pub(crate) struct TellSeed(pub(crate) u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the run failed with AV_SEED={}", self.0);
        }
    }
}
