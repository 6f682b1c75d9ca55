// SPDX-License-Identifier: Apache-2.0
//! What befalls the node.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::node::Node;

/// Calls that hang.
const METHODS: [&str; 6] = [
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "ControllerPublishVolume",
    "CreateVolume",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServeKilled,
    PartKilled,
    ServeStopped,
    DriverKilled,
    DriverStopped,
    CallHangs,
    ContainerdKilled,
}

/// Each as often as it is here.
const FAULTS: [Fault; 11] = [
    Fault::ServeKilled,
    Fault::PartKilled,
    Fault::PartKilled,
    Fault::ServeKilled,
    Fault::ServeStopped,
    Fault::DriverKilled,
    Fault::DriverKilled,
    Fault::DriverStopped,
    Fault::CallHangs,
    Fault::CallHangs,
    Fault::ContainerdKilled,
];

pub(super) struct Chaos {
    random: fastrand::Rng,
    /// In an order that is drawn anew when all have come.
    due: Vec<Fault>,
    came: BTreeMap<Fault, u32>,
    spares_serve: bool,
}

impl Chaos {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            due: Vec::new(),
            came: BTreeMap::new(),
            spares_serve: false,
        }
    }

    /// Our daemon is not killed from now on.
    pub(super) fn spare_serve(&mut self) {
        self.spares_serve = true;
    }

    /// One fault, from its beginning to its end; gives the time until the next.
    pub(super) fn strike(&mut self, node: &mut Node) -> Duration {
        if self.due.is_empty() {
            self.due = FAULTS.to_vec();
            self.random.shuffle(&mut self.due);
        }
        let fault = self.due.pop().expect("there are faults");
        if matches!(fault, Fault::ServeKilled | Fault::PartKilled) && self.spares_serve {
            return Duration::ZERO;
        }
        let moment = Duration::from_millis(self.random.u64(0..4_000));
        let pause = || std::thread::sleep(moment);
        match fault {
            Fault::ServeKilled => {
                node.kill_serve();
                pause();
                node.start_serve();
            }
            Fault::PartKilled => {
                let parts = ["control", "node", "helper"];
                let part = self.random.choice(parts).expect("there are three");
                node.kill_part(part, |_| {});
            }
            Fault::ServeStopped => {
                node.freeze_serve(true);
                pause();
                node.freeze_serve(false);
            }
            Fault::DriverKilled => {
                node.kill_driver();
                pause();
                node.start_driver();
            }
            Fault::DriverStopped => {
                node.freeze_driver(true);
                pause();
                node.freeze_driver(false);
            }
            Fault::CallHangs => {
                node.driver_hang(self.random.choice(METHODS).expect("there are some"));
                pause();
                node.driver_well();
            }
            Fault::ContainerdKilled => {
                node.kill_containerd();
                pause();
                node.restart_containerd();
            }
        }
        *self.came.entry(fault).or_default() += 1;
        Duration::from_millis(self.random.u64(1_000..8_000))
    }

    pub(super) fn assert_all_came(&self) {
        for fault in FAULTS {
            assert!(self.came.contains_key(&fault), "never: {fault:?}");
        }
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let came: Vec<_> = self
            .came
            .iter()
            .map(|(w, n)| format!("{w:?} {n}"))
            .collect();
        f.write_str(&came.join(", "))
    }
}
