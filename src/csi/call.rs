// SPDX-License-Identifier: Apache-2.0
//! What a failed call means.

use std::fmt;

use crate::error::Error;

/// Whether a failed call is known not to have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The driver answered no: nothing is under way.
    Final,
    /// It may be done, under way or not done: repeat the same request, or negate it.
    Ambiguous,
}

/// A CSI call that failed.
#[derive(Debug)]
pub struct CallError {
    /// The RPC, as CSI spells it.
    pub rpc: &'static str,
    /// Whether it may have been carried out.
    pub outcome: Outcome,
    /// What went wrong, with the driver's message.
    pub error: Error,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rpc, self.error.full_message())
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        call.error.context(call.rpc)
    }
}
