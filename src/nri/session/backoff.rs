// SPDX-License-Identifier: Apache-2.0
//! How long to wait before the next session.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);

/// Every registration takes a node-wide lock of the runtime.
const LONGEST: Duration = Duration::from_secs(30);

/// A socket that nobody answers on costs the runtime nothing, and once it is
/// back it creates containers without us until we are too.
const LONGEST_UNHEARD: Duration = Duration::from_secs(2);

/// A session that lived this long was a good one.
const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lived {
    /// The runtime was not reached.
    NotAtAll,
    /// It ended before it had proven itself.
    Briefly,
    /// It was a good one.
    Long,
}

impl Lived {
    /// By the time of synchronization, if it came to that.
    pub(super) fn since(synchronized: Option<Instant>) -> Self {
        match synchronized {
            Some(since) if since.elapsed() >= LONG_ENOUGH => Self::Long,
            _ => Self::Briefly,
        }
    }
}

/// Doubling delays with jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    sessions: u32,
    dials: u32,
}

impl Backoff {
    /// The delay after a session that ended so. Dialling in vain counts apart:
    /// it says nothing about the sessions to come.
    pub(super) fn next(&mut self, lived: Lived) -> Duration {
        let (failures, longest) = match lived {
            Lived::NotAtAll => (&mut self.dials, LONGEST_UNHEARD),
            Lived::Briefly | Lived::Long => {
                self.dials = 0;
                (&mut self.sessions, LONGEST)
            }
        };
        if lived == Lived::Long {
            *failures = 0;
        }
        let delay = FIRST.saturating_mul(1 << (*failures).min(6)).min(longest);
        *failures = failures.saturating_add(1);
        delay.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_about(delay: Duration, seconds: f64) {
        let ratio = delay.as_secs_f64() / seconds;
        assert!(
            (0.8..=1.2).contains(&ratio),
            "{delay:?} is not about {seconds} s"
        );
    }

    #[test]
    fn the_delay_doubles_from_half_a_second_to_thirty() {
        let mut backoff = Backoff::default();
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] {
            assert_about(backoff.next(Lived::Briefly), seconds);
        }
    }

    #[test]
    fn a_good_session_resets_it() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(Lived::Briefly);
        }
        assert_about(backoff.next(Lived::Long), 0.5);
        assert_about(backoff.next(Lived::Briefly), 1.0);
    }

    #[test]
    fn a_socket_without_a_listener_is_tried_every_two_seconds() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert!(backoff.next(Lived::NotAtAll) <= Duration::from_millis(2400));
        }
        assert_about(backoff.next(Lived::Briefly), 0.5);
        assert_about(backoff.next(Lived::NotAtAll), 0.5);
        assert_about(backoff.next(Lived::Briefly), 1.0);
    }

    #[test]
    fn delays_of_many_plugins_differ() {
        let delays: std::collections::BTreeSet<_> = (0..20)
            .map(|_| Backoff::default().next(Lived::Long))
            .collect();
        assert!(delays.len() > 1);
    }
}
