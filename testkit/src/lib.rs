// SPDX-License-Identifier: Apache-2.0
//! Doubles of the real peers, used over real sockets.

pub mod csi;
