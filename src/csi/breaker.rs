// SPDX-License-Identifier: Apache-2.0
//! The breaker of one endpoint: a driver that does not answer at all is not
//! called, call after call, to the deadline of each. Pure: the clock is given.
//!
//! A single volume that hangs (its server is dead, say) does not open it: when
//! calls have gone unanswered the driver is asked with Probe, and one that
//! answers is there.

use std::time::{Duration, Instant};

/// Calls without an answer, one after the other, after which Probe is asked.
const SUSPECT_AFTER: u32 = 3;

/// The first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether calls may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// They may.
    Open,
    /// Ask with Probe first, and report what came of it.
    ProbeFirst,
    /// Not before this time.
    Closed(Instant),
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    unanswered: u32,
    /// Probes that failed in a row; calls are held back while there are any.
    failed_probes: u32,
    next_probe: Option<Instant>,
    probing: bool,
}

impl Breaker {
    /// Whether a call may be made now. Who is told [`Gate::ProbeFirst`] must
    /// report the probe's end.
    pub(super) fn gate(&mut self, now: Instant) -> Gate {
        if self.failed_probes == 0 && (self.unanswered < SUSPECT_AFTER || self.probing) {
            return Gate::Open;
        }
        match self.next_probe {
            Some(at) if self.probing || at > now => Gate::Closed(at.max(now)),
            _ => {
                self.probing = true;
                Gate::ProbeFirst
            }
        }
    }

    /// Whether calls are held back now.
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.failed_probes > 0 && self.next_probe.is_some_and(|at| self.probing || at > now)
    }

    /// A call was answered, with whatever code.
    pub(super) fn answered(&mut self) {
        self.unanswered = 0;
        self.failed_probes = 0;
        self.next_probe = None;
    }

    /// A call had no answer by its deadline, or no connection.
    pub(super) fn unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// The probe came to its end.
    pub(super) fn probed(&mut self, answered: bool, now: Instant) {
        self.probing = false;
        if answered {
            self.answered();
        } else {
            let doublings = self.failed_probes.min(8);
            self.failed_probes += 1;
            self.next_probe = Some(now + (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE));
        }
    }

    /// The probe was given up before its end.
    pub(super) fn probe_given_up(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_an_answer_are_followed_by_a_probe_and_not_by_a_ban() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..SUSPECT_AFTER {
            assert_eq!(breaker.gate(now), Gate::Open);
            breaker.unanswered();
        }
        assert_eq!(breaker.gate(now), Gate::ProbeFirst);
        // Others go on meanwhile: nothing is proven yet.
        assert_eq!(breaker.gate(now), Gate::Open);
        breaker.probed(true, now);
        assert_eq!(breaker.gate(now), Gate::Open);
    }

    #[test]
    fn a_driver_that_does_not_answer_its_probe_is_left_alone_for_longer_and_longer() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..SUSPECT_AFTER {
            breaker.unanswered();
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(breaker.gate(now), Gate::ProbeFirst);
            breaker.probed(false, now);
            let Gate::Closed(until) = breaker.gate(now) else {
                panic!("calls are held back");
            };
            pauses.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        // One at a time asks.
        assert_eq!(breaker.gate(now), Gate::ProbeFirst);
        assert!(matches!(breaker.gate(now), Gate::Closed(_)));
        breaker.probe_given_up();
        assert_eq!(breaker.gate(now), Gate::ProbeFirst);
        breaker.probed(true, now);
        assert_eq!(breaker.gate(now), Gate::Open);
    }

    #[test]
    fn one_answer_forgives_all() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.unanswered();
            breaker.answered();
            assert_eq!(breaker.gate(now), Gate::Open);
        }
    }
}
