// SPDX-License-Identifier: Apache-2.0
//! How long to wait between tries.

use std::time::Duration;

/// The pauses between the tries of what fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After each of the first four tries, so that a short outage costs little.
    pub first: Duration,
    /// The pause doubles up to this.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(120),
        }
    }
}

impl Pace {
    /// The pause after this many failures in a row. `jitter` is 0 to 1 and takes
    /// up to a quarter off.
    pub fn pause(&self, attempts: u32, jitter: f64) -> Duration {
        let doublings = attempts.saturating_sub(4).min(16);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tries_come_quickly_and_the_last_every_two_minutes() {
        let pace = Pace::default();
        let waited: Duration = (1..=4).map(|n| pace.pause(n, 0.0)).sum();
        assert_eq!(waited, Duration::from_secs(2));
        assert_eq!(pace.pause(6, 0.0), Duration::from_secs(2));
        assert_eq!(pace.pause(u32::MAX, 0.0), Duration::from_secs(120));
        assert_eq!(pace.pause(1, 1.0), Duration::from_millis(375));
    }
}
