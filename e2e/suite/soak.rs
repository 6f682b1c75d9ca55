// SPDX-License-Identifier: Apache-2.0
//! The soak: actors come and go at random on one node for minutes, while our daemon,
//! the driver and containerd are killed, stopped and made to hang. Started by
//! `e2e/soak.sh`.
//!
//! In the last half our daemon is not killed any more, so that its memory can be
//! compared with itself.

mod chaos;
mod client;
mod growth;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chaos::Chaos;
use growth::Growth;
use worker::Worker;

use crate::{Case, cases::prepare, driver::Driver, leaks, node::Node, note};

/// Actors that live at a time.
const WORKERS: usize = 6;

/// A worker that comes no further for so long is stuck: no fault lasts longer than a
/// few seconds.
const STUCK: Duration = Duration::from_secs(150);

/// How long it goes, and the seed of all that is random.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    /// As the environment says; none: no soak is asked for.
    pub(crate) fn from_environment() -> Option<Self> {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            let number = text.parse::<u64>();
            Some(number.unwrap_or_else(|e| panic!("{name}={text}: {e}")))
        };
        let minutes = number("AV_SOAK_MINUTES")?;
        Some(Self {
            length: Duration::from_secs(60 * minutes),
            seed: number("AV_SEED").unwrap_or_else(|| fastrand::u64(..)),
        })
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let name = "whatever_dies_and_hangs_no_data_is_lost_and_nothing_leaks";
    vec![Case::new(name, Driver::Testkit, soak).guarded()]
}

/// What all threads share.
pub(crate) struct Shared {
    /// No new actor begins after it.
    pub(crate) end: Instant,
    pub(crate) failed: AtomicBool,
    pub(crate) counts: Counts,
}

/// What came to pass.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) actors: AtomicU64,
    pub(crate) pods: AtomicU64,
    pub(crate) containers: AtomicU64,
    pub(crate) lines: AtomicU64,
    pub(crate) verified: AtomicU64,
    pub(crate) retries: AtomicU64,
}

/// A sandbox that a killed containerd was making is in no listing: its own leftovers
/// are not ours. What holds a volume would have kept its actor from being deleted.
fn forgotten(node: &Node) -> String {
    let pods = node.cri.pods().expect("the runtime is up");
    assert_eq!(pods, [""; 0], "all pods are removed");
    assert_eq!(node.held_mounts(), [""; 0]);
    // Their shims end a moment after them.
    std::thread::sleep(Duration::from_secs(2));
    leaks::end_forgotten(&node.dir, &node.cgroup_parent)
}

fn soak(node: &mut Node) {
    let plan = Plan::from_environment().expect("it is only run where it is asked for");
    println!("soak: {:?}, AV_SEED={}", plan.length, plan.seed);
    prepare(node);
    let start = Instant::now();
    let shared = Arc::new(Shared {
        end: start + plan.length,
        failed: AtomicBool::new(false),
        counts: Counts::default(),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| Worker::start(node, number, plan.seed, Arc::clone(&shared)))
        .collect();
    let mut chaos = Chaos::new(plan.seed);
    let mut growth = Growth::default();
    let calm = start + plan.length / 2;
    let mut next = Instant::now();
    while Instant::now() < shared.end && !shared.failed.load(Ordering::Relaxed) {
        if growth.is_empty() && Instant::now() >= calm {
            // What it holds from before is not counted.
            node.kill_serve();
            node.start_serve();
            chaos.spare_serve();
            growth.begin(node.serve_pids());
        }
        if Instant::now() >= next {
            next = Instant::now() + chaos.strike(node);
        }
        growth.sample();
        for worker in &workers {
            let quiet = worker.quiet_for();
            if quiet > STUCK {
                shared.failed.store(true, Ordering::Relaxed);
                panic!(
                    "worker {} comes no further for {quiet:?}: {}",
                    worker.number,
                    worker.at()
                );
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    node.driver_well();
    let failures: Vec<String> = workers.into_iter().filter_map(Worker::join).collect();
    let forgotten = match failures.is_empty() {
        true => forgotten(node),
        false => "not looked at".to_owned(),
    };
    let counts = &shared.counts;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    note(format!(
        "soak: {:.0} s, AV_SEED={}: {} actors, {} pods, {} containers, {} lines written and {} read back, {} tries repeated; {chaos}; {growth}; forgotten by containerds that were killed: {forgotten}",
        start.elapsed().as_secs_f32(),
        plan.seed,
        count(&counts.actors),
        count(&counts.pods),
        count(&counts.containers),
        count(&counts.lines),
        count(&counts.verified),
        count(&counts.retries),
    ));
    assert!(failures.is_empty(), "AV_SEED={}: {failures:#?}", plan.seed);
    chaos.assert_all_came();
    growth.assert_bounded();
    let lives = plan.length.as_secs() / 60;
    for (what, of) in [("actors", &counts.actors), ("lines", &counts.lines)] {
        assert!(count(of) > lives * 5, "only {} {what}", count(of));
    }
}
