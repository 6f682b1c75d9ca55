// SPDX-License-Identifier: Apache-2.0
//! What people write: templates, storage classes, annotations. Pure.
//!
//! Text that a person wrote ([`template`], [`storage_class`]) is read in two
//! steps: YAML to a tree within limits, then one walk over the tree that
//! collects every problem with its field path. Text that a machine wrote
//! ([`annotation`]) is read strictly and stops at the first problem.

pub mod annotation;
pub mod grant;
mod problem;
pub mod quantity;
mod rule;
pub mod storage_class;
pub mod template;
mod tree;
mod walk;

pub use problem::{Problem, Problems};
pub use rule::selinux_mount_flag;
