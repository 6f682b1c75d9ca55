// SPDX-License-Identifier: Apache-2.0
//! Doubles of the real peers, used over real sockets, and a client that stands
//! in for the kubelet.

pub mod cri;
