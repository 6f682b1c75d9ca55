// SPDX-License-Identifier: Apache-2.0
//! Unix sockets: how every gRPC client and server of this project connects.

mod unix;

pub use unix::{UnixChannel, bind, connect, connect_once, was_not_sent};
