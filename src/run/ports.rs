// SPDX-License-Identifier: Apache-2.0
//! Joins rooms that do not know each other: what others tell becomes metrics.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{control::nodes::NodeWatcher, csi::Observer, model::DriverName, telemetry::Metrics};

/// Counts the nodes.
pub(super) struct Counted(pub(super) Arc<Metrics>);

impl NodeWatcher for Counted {
    fn changed(&self, states: &BTreeMap<&'static str, usize>, possible_double_writers: usize) {
        self.0.nodes(states, possible_double_writers);
    }
}

/// Counts the calls to CSI drivers.
pub(super) struct CountedCalls(pub(super) Arc<Metrics>);

impl Observer for CountedCalls {
    fn called(&self, driver: &DriverName, rpc: &'static str, code: &'static str, took: Duration) {
        self.0.csi_call(driver.as_str(), rpc, code, took);
    }
}
