// SPDX-License-Identifier: Apache-2.0
//! Clients of actorvolumes/v1, and errors as gRPC statuses: how the CLI reaches the daemons,
//! and what a node and its control plane agree on.

mod admin;
mod agent;
mod client;
mod kind;
pub mod line;
mod status;

pub use admin::AdminClient;
pub use agent::{agent_status, check_container, give_container, release_container, set_draining};
pub use client::{Client, Watch};
pub use kind::kind_of;
pub use status::{error_of, status_of};
