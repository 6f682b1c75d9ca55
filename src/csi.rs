// SPDX-License-Identifier: Apache-2.0
//! The CSI client: drivers by name, their capabilities, and every call with a
//! deadline and a class of failure.

mod answer;
mod attach;
mod breaker;
mod call;
mod capabilities;
mod connection;
mod controller;
pub mod discovery;
mod driver;
mod expand;
mod list;
mod node;
mod peer;
mod registry;
mod request;
mod stats;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod told;

pub use call::{CallError, Outcome};
pub use capabilities::Capabilities;
pub use driver::{Driver, DriverStatus, Observer};
pub use registry::{DEFAULT_MAX_CALLS, DriverConfig, Registry};
pub use request::{
    Accessibility, Condition, ControllerExpand, ControllerPublish, ControllerUnpublish,
    CreateVolume, CreatedVolume, DeleteVolume, ExpandedVolume, ListedVolume, NodeExpand, NodeInfo,
    NodePublish, NodeStage, NodeStats, Usage, VolumeCapability, VolumeStats,
};
