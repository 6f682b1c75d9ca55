// SPDX-License-Identifier: Apache-2.0
//! Every system call, and the only room that may hold unsafe code.

pub mod attach;
pub mod caps;
pub mod child;
pub mod crash;
pub mod device;
pub mod durable;
pub mod enter;
pub mod holders;
pub mod idmap;
pub mod inherited;
pub mod lock;
pub mod mount;
pub mod mountinfo;
pub mod place;
pub mod privileges;
pub mod process;
pub mod reach;
pub mod replace;
pub mod seccomp;
pub mod socket;
pub mod sub_path;
pub mod tree;
