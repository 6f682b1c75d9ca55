// SPDX-License-Identifier: Apache-2.0
//! How long container creations may wait, all together: the runtime holds a
//! node-wide lock meanwhile (I9).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Waits are counted over this much time.
const WINDOW: Duration = Duration::from_secs(10);

/// A share of the wall clock that waits may take.
#[derive(Debug)]
pub struct Budget {
    /// What may be waited in one window.
    capacity: Duration,
    state: Mutex<(Duration, Instant)>,
}

impl Budget {
    /// `percent` of any ten seconds.
    pub fn new(percent: u8, now: Instant) -> Self {
        let capacity = WINDOW * u32::from(percent) / 100;
        Self {
            capacity,
            state: Mutex::new((capacity, now)),
        }
    }

    /// Takes what is left, at most `wish`.
    pub fn take(&self, wish: Duration, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let earned = now
            .saturating_duration_since(*since)
            .mul_f64(self.capacity.as_secs_f64() / WINDOW.as_secs_f64());
        *left = (*left + earned).min(self.capacity);
        *since = now;
        let taken = wish.min(*left);
        *left -= taken;
        taken
    }

    /// Gives back what was taken and not waited.
    pub fn give_back(&self, unused: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = (state.0 + unused).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_together_never_pass_the_share_of_the_window() {
        let start = Instant::now();
        let budget = Budget::new(20, start);
        let mut waited = Duration::ZERO;
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100 * tenth);
            waited += budget.take(Duration::from_millis(1_500), now);
        }
        // A full bucket at the start, and what was earned meanwhile.
        assert!(waited <= Duration::from_secs(4), "{waited:?}");
        assert!(waited >= Duration::from_millis(3_500), "{waited:?}");
    }

    #[test]
    fn what_was_not_waited_counts_again() {
        let now = Instant::now();
        let budget = Budget::new(20, now);
        let taken = budget.take(Duration::from_secs(9), now);
        assert_eq!(taken, Duration::from_secs(2));
        assert_eq!(budget.take(Duration::from_secs(1), now), Duration::ZERO);
        budget.give_back(taken);
        assert_eq!(
            budget.take(Duration::from_secs(1), now),
            Duration::from_secs(1)
        );
    }
}
