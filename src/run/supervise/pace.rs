// SPDX-License-Identifier: Apache-2.0
//! How long a part that has died is left alone.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// What has run for so long was well.
const WELL: Duration = Duration::from_secs(30);

/// The pauses of one part.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How often it has died since it was well.
    deaths: u32,
}

impl Pace {
    /// It has died after this time; gives the pause.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= WELL {
            self.deaths = 0;
        }
        let doubled = 2_u32.saturating_pow(self.deaths);
        self.deaths = self.deaths.saturating_add(1);
        FIRST.saturating_mul(doubled).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dies_again_and_again_is_left_alone_for_longer_until_it_was_well() {
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..5).map(|_| pace.after(Duration::ZERO)).collect();
        let doubled = [100, 200, 400, 800, 1600].map(Duration::from_millis);
        assert_eq!(pauses, doubled);
        for _ in 0..100 {
            assert!(pace.after(WELL - FIRST) <= LONGEST);
        }
        assert_eq!(pace.after(Duration::ZERO), LONGEST);
        assert_eq!(pace.after(WELL), FIRST);
    }
}
