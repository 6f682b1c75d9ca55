// SPDX-License-Identifier: Apache-2.0
//! Doubles of the real peers, used over real sockets: a CSI driver, the runtime
//! side of NRI, a CRI client, and a CRI server that lists; and the real helper.

pub mod cri;
pub mod csi;
pub mod helper;
pub mod nri;
pub mod runtime;
