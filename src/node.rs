// SPDX-License-Identifier: Apache-2.0
//! The node agent: publishes and releases the volumes of this node's scopes.
//!
//! The doors (NRI now; hook and wrapper later) tell it what they see. For each
//! volume there is one record on disk and at most one task that brings the
//! world to what the record asks for, one CSI call at a time. What to do next
//! is decided by [`plan`], purely.

mod admit;
mod agent;
mod anchor;
mod asked;
mod breach;
mod budget;
mod check;
mod create;
mod door;
mod drain;
mod expand;
mod give;
mod give_back;
mod health;
mod helper;
mod idmap;
mod join;
mod layout;
mod lost;
pub mod plan;
mod policy;
mod proof;
mod reconcile;
mod record;
mod records;
mod service;
mod settings;
mod sight;
mod stats;
mod strays;
mod stuck;
mod sub_path;
mod sweep;
mod together;
mod volume;
mod worker;

pub use admit::is_ours;
pub use agent::Agent;
pub use asked::Holding;
pub use breach::Breach;
pub use door::Door;
pub use layout::Layout;
pub use record::{Phase, Publication, Staging, SubMount, SubShown, VolumeRecord};
pub use service::AgentService;
pub use settings::{Authority, NodeSettings, Ports};
pub use strays::strays;
pub use stuck::Stuck;
