// SPDX-License-Identifier: Apache-2.0
//! What comes in at most, at each door of a daemon.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    transport,
};

/// What comes in at most, at each door of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Requests under way at a time. An eighth is kept for those that give back, such
    /// as a suspend, and an eighth for the guard's question.
    pub requests: usize,
    /// Requests of one peer that wait for their turn.
    pub queue: usize,
    /// How long one waits, in seconds.
    pub queue_wait_s: u64,
    /// Requests of one peer in a second; it is slowed down to that.
    pub requests_per_second: u32,
    /// Connections to the unix socket.
    pub connections: usize,
    /// Connections of nodes.
    pub node_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let door = transport::Limits::default();
        Self {
            request_bytes: door.request_bytes,
            requests: door.requests,
            queue: door.queue,
            queue_wait_s: door.queue_wait.as_secs(),
            requests_per_second: door.requests_per_second,
            connections: door.connections,
            node_connections: 4096,
        }
    }
}

/// More than anybody needs, and far below what overflows.
const MOST: usize = 1 << 20;

/// A template and an actor must get in.
const LEAST_BYTES: usize = 64 << 10;

/// What a client of ours can send.
const MOST_BYTES: usize = 64 << 20;

impl Limits {
    pub(super) fn check(&self) -> Result<()> {
        if !(LEAST_BYTES..=MOST_BYTES).contains(&self.request_bytes) {
            return Err(Error::invalid(format!(
                "limits.request_bytes must be {LEAST_BYTES} to {MOST_BYTES}"
            )));
        }
        // Eight, so that an eighth is a place.
        for (key, value, least) in [
            ("requests", self.requests, 8),
            ("queue", self.queue, 1),
            ("connections", self.connections, 8),
            ("node_connections", self.node_connections, 8),
        ] {
            if !(least..=MOST).contains(&value) {
                return Err(Error::invalid(format!(
                    "limits.{key} must be {least} to {MOST}"
                )));
            }
        }
        if !(1..=3600).contains(&self.queue_wait_s) {
            return Err(Error::invalid("limits.queue_wait_s must be 1 to 3600"));
        }
        if self.requests_per_second == 0 {
            return Err(Error::invalid(
                "limits.requests_per_second must be at least 1",
            ));
        }
        Ok(())
    }

    /// Those of the unix socket.
    pub fn local(&self) -> transport::Limits {
        transport::Limits {
            request_bytes: self.request_bytes,
            requests: self.requests,
            queue: self.queue,
            queue_wait: Duration::from_secs(self.queue_wait_s),
            requests_per_second: self.requests_per_second,
            connections: self.connections,
            ..transport::Limits::default()
        }
    }

    /// Those of the door for nodes.
    pub fn nodes(&self) -> transport::Limits {
        transport::Limits {
            connections: self.node_connections,
            ..self.local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn limits_are_set_within_reason() {
        let config = Config::parse("[limits]\nrequests = 8\nqueue_wait_s = 3\n").unwrap();
        let local = config.limits.local();
        assert_eq!((local.requests, local.queue_wait.as_secs()), (8, 3));
        assert_eq!(local.request_bytes, 1 << 20);
        assert_eq!(config.limits.nodes().connections, 4096);
        for bad in [
            "requests = 7",
            "request_bytes = 1000",
            "queue = 0",
            "connections = 4000000000",
            "queue_wait_s = 0",
            "requests_per_second = 0",
            "bytes = 1",
        ] {
            assert!(
                Config::parse(&format!("[limits]\n{bad}\n")).is_err(),
                "{bad}"
            );
        }
    }
}
