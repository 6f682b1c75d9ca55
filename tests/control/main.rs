// SPDX-License-Identifier: Apache-2.0
//! The control plane over real sockets: verbs in, CSI calls out.

mod bench;
mod faults;
mod verbs;
