// SPDX-License-Identifier: Apache-2.0
//! The table of capabilities is what the features need, and no more: each line is tried
//! on the real kernel.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod daemons;
mod features;
mod places;

use actor_volumes::host::{
    caps,
    privileges::{CapabilitySet, Need, Process, TABLE, names},
};

/// Runs it in a thread that has these capabilities and no other.
fn with<T: Send>(capabilities: CapabilitySet, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| {
        let limited = s.spawn(move || {
            let kept = caps::keep(capabilities, capabilities).unwrap();
            let missing = names(kept.missing);
            assert!(missing.is_empty(), "this machine has no {missing:?}");
            body()
        });
        limited.join().unwrap()
    })
}

/// Whether the feature works with these capabilities.
fn tried(need: &Need, capabilities: CapabilitySet) -> Result<(), String> {
    let feature = features::ready(need);
    with(capabilities, &feature)
}

#[test]
#[ignore = "needs root: it gives up capabilities"]
fn each_capability_is_needed_and_together_they_are_enough() {
    for need in TABLE {
        let all = need.process.capabilities(true);
        let (name, process) = (names(need.capability).join(", "), need.process);
        assert_eq!(
            tried(need, all),
            Ok(()),
            "{process} cannot do with what it keeps: {}",
            need.feature
        );
        let without = tried(need, all - need.capability);
        assert!(
            without.is_err(),
            "{process} does not need {name}: {} goes without it",
            need.feature
        );
    }
}

#[test]
fn every_process_has_its_own_lines_but_those_that_start_others() {
    for process in Process::ALL {
        let lines = TABLE.iter().filter(|n| n.process == process).count();
        assert_eq!(lines == 0, process.parts().len() > 1, "{process}");
    }
}
