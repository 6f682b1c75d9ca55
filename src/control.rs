// SPDX-License-Identifier: Apache-2.0
//! The control plane: creates, attaches, detaches and deletes volumes; owns actors and templates.

pub mod lifecycle;
pub mod record;
pub mod store;
