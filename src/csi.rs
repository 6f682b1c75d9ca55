// SPDX-License-Identifier: Apache-2.0
//! The CSI client: drivers by name, their capabilities, and every call with a
//! deadline and a class of failure.

mod call;
mod capabilities;
mod connection;
mod controller;
mod driver;
mod node;
mod registry;
mod request;

pub use call::{CallError, Outcome};
pub use capabilities::Capabilities;
pub use driver::{Driver, DriverStatus};
pub use registry::{DriverConfig, Registry};
pub use request::{
    ControllerPublish, CreateVolume, CreatedVolume, NodePublish, NodeStage, VolumeCapability,
};
