// SPDX-License-Identifier: Apache-2.0
//! All cases, by what they are about.

mod plain;

use crate::Case;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [plain::cases()].concat()
}
