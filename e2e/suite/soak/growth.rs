// SPDX-License-Identifier: Apache-2.0
//! What processes take up while they live.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// Between two looks.
const EACH: Duration = Duration::from_secs(1);

/// What it takes up at first is its start's.
const WARM_UP: usize = 15;

/// What its first third must not be exceeded by, in percent.
const MORE: u64 = 10;

#[derive(Clone, Copy)]
struct Sample {
    memory_kib: u64,
    threads: u64,
    files: u64,
}

impl Sample {
    fn of(pid: u32) -> Self {
        let dir = format!("/proc/{pid}");
        let status = fs::read_to_string(format!("{dir}/status")).expect("it lives on");
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name));
            let value = line.and_then(|l| l.split_whitespace().nth(1));
            value
                .and_then(|v| v.parse().ok())
                .expect("the kernel tells")
        };
        Self {
            memory_kib: field("VmRSS:"),
            threads: field("Threads:"),
            files: fs::read_dir(format!("{dir}/fd"))
                .expect("it lives on")
                .count() as u64,
        }
    }
}

/// Samples of them together.
#[derive(Default)]
pub(super) struct Growth {
    pids: Vec<u32>,
    samples: Vec<Sample>,
    last: Option<Instant>,
}

impl Growth {
    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    pub(super) fn begin(&mut self, pids: Vec<u32>) {
        self.pids = pids;
    }

    /// Looks, if it is time to.
    pub(super) fn sample(&mut self) {
        if self.pids.is_empty() || self.last.is_some_and(|at| at.elapsed() < EACH) {
            return;
        }
        self.last = Some(Instant::now());
        let each = self.pids.iter().map(|pid| Sample::of(*pid));
        let all = each.reduce(|a, b| Sample {
            memory_kib: a.memory_kib + b.memory_kib,
            threads: a.threads + b.threads,
            files: a.files + b.files,
        });
        self.samples.extend(all);
    }

    /// The means of the first and the last third.
    fn thirds(&self, of: impl Fn(&Sample) -> u64) -> (u64, u64) {
        let warm = self.samples.get(WARM_UP..).unwrap_or_default();
        let third = warm.len() / 3;
        let mean = |part: &[Sample]| part.iter().map(&of).sum::<u64>() / part.len().max(1) as u64;
        (mean(&warm[..third]), mean(&warm[warm.len() - third..]))
    }

    pub(super) fn assert_bounded(&self) {
        assert!(
            self.samples.len() >= WARM_UP + 30,
            "only {} samples",
            self.samples.len()
        );
        let (first, last) = self.thirds(|s| s.memory_kib);
        assert!(last <= first * (100 + MORE) / 100, "memory grows: {self}");
        // These move by a few with what is under way.
        for of in [|s: &Sample| s.threads, |s: &Sample| s.files] {
            let (first, last) = self.thirds(of);
            assert!(last <= first * (100 + MORE) / 100 + 8, "it grows: {self}");
        }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.thirds(|s| s.memory_kib);
        let threads = self.thirds(|s| s.threads);
        let files = self.thirds(|s| s.files);
        write!(
            f,
            "first and last third of {} s: memory {} and {} KiB, threads {} and {}, files {} and {}",
            self.samples.len(),
            memory.0,
            memory.1,
            threads.0,
            threads.1,
            files.0,
            files.1
        )
    }
}
