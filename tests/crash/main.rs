// SPDX-License-Identifier: Apache-2.0
//! The daemon aborted at every crash point, one after another: started again, it
//! goes on from what is on disk, and at the end nothing is lost or left. A point
//! that no run comes to fails the test.

#![cfg(feature = "crash-points")]
#![allow(clippy::unwrap_used)] // the whole file is a test

mod daemon;
mod story;

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, sync::Mutex};

use actor_volumes::host::crash::CrashPoint;
use story::Story;

const SIGABRT: i32 = 6;

/// A point, and at which hit of it the daemon dies.
type Run = (CrashPoint, u32);

fn aborted(status: &ExitStatus) -> bool {
    status.signal() == Some(SIGABRT)
}

/// Tells one story after the other until none is left; the stories' doubles and
/// clients stay in this thread.
fn worker(runs: &Mutex<Vec<Run>>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut never = Vec::new();
    loop {
        let next = runs.lock().unwrap().pop();
        let Some((point, hit)) = next else {
            return never;
        };
        let exits = runtime.block_on(Story::tell(Some((point.name(), hit))));
        if exits.iter().filter(|status| aborted(status)).count() != 1 {
            never.push(format!("{} at hit {hit}: {exits:?}", point.name()));
        }
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_is_killed_at_any_point_loses_and_leaks_nothing() {
    let mut runs: Vec<Run> = CrashPoint::ALL.iter().map(|point| (*point, 1)).collect();
    // Once more with a life behind it, where a second life comes there.
    let again = |point: &CrashPoint| {
        !point.name().starts_with("create") && !point.name().starts_with("delete")
    };
    let second = CrashPoint::ALL.iter().copied().filter(again);
    runs.extend(second.map(|point| (point, 2)));
    let runs = Mutex::new(runs);
    let never = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| worker(&runs))).collect();
        let joined = workers.into_iter().map(|w| w.join().unwrap());
        joined.flatten().collect::<Vec<_>>()
    });
    assert!(never.is_empty(), "never come to: {never:#?}");
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn the_same_story_without_a_crash_ends_with_the_daemon_alive() {
    assert_eq!(Story::tell(None).await, Vec::new());
}
