// SPDX-License-Identifier: Apache-2.0
//! The daemon aborted at every crash point, one after another: started again, it
//! goes on from what is on disk, and at the end nothing is lost or left. A point
//! that no run comes to fails the test.

#![cfg(feature = "crash-points")]
#![allow(clippy::unwrap_used)] // the whole file is a test

mod daemon;
mod story;

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use actor_volumes::host::crash::CrashPoint;
use story::Story;

const SIGABRT: i32 = 6;

fn aborted(status: &ExitStatus) -> bool {
    status.signal() == Some(SIGABRT)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root: run by make test"]
async fn a_daemon_that_is_killed_at_any_point_loses_and_leaks_nothing() {
    // Each point at its first and at its second hit: once on the way to the
    // first pod, once with a life behind it.
    let mut runs: Vec<_> = CrashPoint::ALL
        .iter()
        .flat_map(|point| [(*point, 1), (*point, 2)])
        .collect();
    runs.reverse();
    let runs = std::sync::Arc::new(std::sync::Mutex::new(runs));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let runs = runs.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let next = runs.lock().unwrap().pop();
                    let Some((point, hit)) = next else {
                        return done;
                    };
                    let hits = Story::tell(Some((point.name(), hit))).await;
                    done.push((point, hit, hits));
                }
            })
        })
        .collect();
    let mut never = Vec::new();
    for worker in workers {
        for (point, hit, exits) in worker.await.unwrap() {
            let died_there = exits.iter().filter(|status| aborted(status)).count();
            if died_there != 1 {
                never.push(format!("{} at hit {hit}: {exits:?}", point.name()));
            }
        }
    }
    assert!(never.is_empty(), "never come to: {never:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root: run by make test"]
async fn the_same_story_without_a_crash_ends_with_the_daemon_alive() {
    assert_eq!(Story::tell(None).await, Vec::new());
}
