// SPDX-License-Identifier: Apache-2.0
//! A node that an operator has made sure is off.

use super::{State, settle};
use crate::model::NodeName;

/// Nothing on that node needs to be revoked or released any more (I2). An actor
/// that is resumed there stays so until a verb ends it.
pub fn fence(state: &mut State, node: &NodeName) {
    for attachment in state.attachments.values_mut() {
        attachment.fenced |= attachment.node == *node;
    }
    settle(state);
}
