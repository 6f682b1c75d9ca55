// SPDX-License-Identifier: Apache-2.0
//! The command line and the bundle of an OCI runtime, as whoever stands in its
//! place sees them. Pure, but for the reading of one file.

mod command;
mod crio;
pub mod edit;
mod features;
mod json;
mod question;
mod refusal;
mod spec;
mod state;

pub use command::{Command, Making};
pub use features::maps_owners;
pub use question::{Pod, Question, question};
pub use refusal::{refuse, write_log};
pub use spec::{ContainerSpec, MAX_CONFIG_BYTES, of_status, parse, read};
pub use state::{MAX_STATE_BYTES, State};
