// SPDX-License-Identifier: Apache-2.0
//! The CSI client: drivers by name, their capabilities, and every call with a
//! deadline and a class of failure.

mod call;
mod driver;
mod registry;

pub use call::{CallError, Outcome};
pub use driver::{
    Capabilities, ControllerPublish, CreateVolume, CreatedVolume, Driver, DriverStatus,
    NodePublish, NodeStage, VolumeCapability,
};
pub use registry::{DriverConfig, Registry};
