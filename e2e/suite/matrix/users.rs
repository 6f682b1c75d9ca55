// SPDX-License-Identifier: Apache-2.0
//! Containers with users of their own, and runtimes without root.

use crate::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
