// SPDX-License-Identifier: Apache-2.0
//! What one door lets in at most.

use std::time::Duration;

/// The limits of one door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Requests under way at a time; streams are counted apart, as many.
    pub requests: usize,
    /// Requests of one peer and kind that wait for their turn; more are refused.
    pub queue: usize,
    /// How long one waits for its turn, and how long the bytes of a request may take.
    pub queue_wait: Duration,
    /// Requests of one peer and kind in a second, over any length of time.
    pub requests_per_second: u32,
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one certificate at a time.
    pub connections_of_name: usize,
    /// How long a new connection may take to say its first words.
    pub first_words: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            requests: 64,
            queue: 256,
            queue_wait: Duration::from_secs(10),
            requests_per_second: 500,
            connections: 512,
            connections_of_name: 8,
            first_words: Duration::from_secs(5),
        }
    }
}

/// What a request is, to its door. A flood of one kind starves no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Anything else.
    Other,
    /// It gives back what is held, such as a suspend: some places are kept for it.
    Frees,
    /// Somebody waits for a short answer, such as the guard: some places are kept
    /// for it.
    Asks,
    /// Its answer is a stream.
    Watches,
    /// Both sides send for as long as the connection lasts. It is not bounded by
    /// bytes here, but message for message by its service.
    Line,
}

/// Hears what a door counts.
pub trait Watcher: Send + Sync {
    /// Something was refused at this door.
    fn refused(&self, door: &'static str, why: Refused);
    /// The connections that this door has now.
    fn connections(&self, door: &'static str, now: usize);
}

/// Nobody counts.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn refused(&self, _: &'static str, _: Refused) {}
    fn connections(&self, _: &'static str, _: usize) {}
}

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// The peer may not connect.
    Peer,
    /// There are too many connections.
    Connections,
    /// Too many requests wait already.
    Queue,
    /// It waited too long for its turn.
    Busy,
    /// It was too large.
    Size,
    /// Its bytes took too long.
    Slow,
    /// Its handler panicked.
    Panic,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Peer,
        Self::Connections,
        Self::Queue,
        Self::Busy,
        Self::Size,
        Self::Slow,
        Self::Panic,
    ];

    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Connections => "connections",
            Self::Queue => "queue",
            Self::Busy => "busy",
            Self::Size => "size",
            Self::Slow => "slow",
            Self::Panic => "panic",
        }
    }
}
