// SPDX-License-Identifier: Apache-2.0
//! The CSI client over real sockets.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking

mod bench;
mod client;
mod double;
mod endpoints;
mod pressure;
