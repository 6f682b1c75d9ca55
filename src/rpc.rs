// SPDX-License-Identifier: Apache-2.0
//! Clients of actorvolumes/v1, and errors as gRPC statuses: how the CLI reaches the daemons.

mod client;
mod status;

pub use client::{Client, Watch};
pub use status::{error_of, status_of};
