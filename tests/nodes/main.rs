// SPDX-License-Identifier: Apache-2.0
//! A control plane and its nodes over real sockets with mutual TLS: the line
//! between them, and actors that move along it.

#![allow(clippy::unwrap_used)] // the whole file is a test

mod authority;
mod cut_off;
mod daemons;
mod line;
mod machine;
mod proxy;
mod site;
mod storage;

/// Longer than this nothing may take. A dead line is noticed after 20 s.
const AT_LAST: std::time::Duration = std::time::Duration::from_secs(120);
