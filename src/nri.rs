// SPDX-License-Identifier: Apache-2.0
//! The Node Resource Interface: how a container runtime tells this plugin about
//! pods and containers, and asks which mounts to add to them.
//!
//! ```text
//!   session ─▶ Plugin (the trait that the rest of the house implements)
//!      │
//!    ttrpc     requests and responses, two services on one socket:
//!      │       we serve "Plugin" on connection 1, call "Runtime" on 2
//!     mux      frames with a connection id
//!      │
//!   unix socket
//! ```
//!
//! Imports `proto` and `error` alone.

mod event;
pub mod mux;
mod plugin;
mod session;
pub mod ttrpc;

pub use event::EventMask;
pub use plugin::{Plugin, RuntimeInfo};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use session::answer_all;
pub use session::{SessionConfig, Status, run, serve_one};

use crate::proto::nri::{ContainerAdjustment, LinuxContainerAdjustment, LinuxDevice, Mount};

/// The adjustment that adds these mounts and devices and nothing else.
pub fn adjust(mounts: Vec<Mount>, devices: Vec<LinuxDevice>) -> ContainerAdjustment {
    // An adjustment of what only Linux has is sent where there is one alone.
    let linux = (!devices.is_empty()).then_some(LinuxContainerAdjustment { devices });
    ContainerAdjustment {
        mounts,
        linux,
        ..Default::default()
    }
}
