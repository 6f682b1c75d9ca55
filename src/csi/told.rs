// SPDX-License-Identifier: Apache-2.0
//! Answers of drivers without a driver: for fuzzing.

use super::{call::sanitise, list, stats};
use crate::proto::csi;

/// A listing.
pub(crate) fn list(answer: csi::ListVolumesResponse) {
    for entry in answer.entries {
        list::listed(entry, true);
    }
}

/// How full a volume is.
pub(crate) fn stats(answer: csi::NodeGetVolumeStatsResponse) {
    stats::read(answer);
}

/// The text of an error: it is short, and does nothing to a terminal.
pub(crate) fn message(text: &str) {
    let text = sanitise(text);
    assert!(!text.is_empty() && text.len() <= 1024);
    assert!(!text.chars().any(char::is_control));
}
