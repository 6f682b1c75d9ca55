// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, by RPC: set by a test, or read from a control file.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tonic::{Code, Status};

use super::{Chaos, Hostile, control::Control};

/// What happens to the calls of one RPC, in this order: they wait, hang, fail;
/// or they are carried out, wholly, by half or not at all, and answered wrongly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Each call takes this much longer.
    pub delay: Duration,
    /// Calls wait until the fault is cleared, and are carried out then.
    pub hang: bool,
    /// Calls are not carried out, and answered with this code.
    pub fail: Option<Code>,
    /// Calls are not carried out, and answered with OK.
    pub lie: bool,
    /// Calls do the first half of what they should, and wait there until the
    /// fault is cleared.
    pub hang_midway: bool,
    /// Calls are carried out, and answered with this code.
    pub fail_after: Option<Code>,
    /// Calls are carried out, and answered with UNAVAILABLE all the same.
    pub lose_answer: bool,
    /// All but `delay` and the hanging end after so many calls; none: when
    /// cleared.
    pub times: Option<u32>,
}

impl Fault {
    /// Fails until it is cleared.
    pub fn fail(code: Code) -> Self {
        Self {
            fail: Some(code),
            ..Self::default()
        }
    }

    /// Is carried out, and fails all the same.
    pub fn fail_after(code: Code) -> Self {
        Self {
            fail_after: Some(code),
            ..Self::default()
        }
    }

    /// Takes longer until it is cleared.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Hangs until it is cleared.
    pub fn hang() -> Self {
        Self {
            hang: true,
            ..Self::default()
        }
    }

    /// Hangs with half of the work done, until it is cleared.
    pub fn hang_midway() -> Self {
        Self {
            hang_midway: true,
            ..Self::default()
        }
    }

    /// Is carried out, but nobody hears of it.
    pub fn lose_answer() -> Self {
        Self {
            lose_answer: true,
            ..Self::default()
        }
    }

    /// Says OK and does nothing.
    pub fn lie() -> Self {
        Self {
            lie: true,
            ..Self::default()
        }
    }

    /// The same, for so many calls.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    /// What is left when `times` are over.
    fn spent(&mut self) {
        if self.times == Some(0) {
            *self = Self {
                delay: self.delay,
                hang: self.hang,
                hang_midway: self.hang_midway,
                ..Self::default()
            };
        }
    }
}

pub(super) struct Faults {
    pub(super) ready: bool,
    pub(super) chaos: Option<Chaos>,
    pub(super) hostile: Hostile,
    /// How many calls there were, for chaos.
    calls: u64,
    set: BTreeMap<String, Fault>,
    control: Option<PathBuf>,
    /// The control file as it was read last.
    seen: String,
}

impl Faults {
    pub(super) fn new(control: Option<PathBuf>) -> Self {
        Self {
            ready: true,
            chaos: None,
            hostile: Hostile::default(),
            calls: 0,
            set: BTreeMap::new(),
            control,
            seen: String::new(),
        }
    }

    pub(super) fn set(&mut self, method: &str, fault: Fault) {
        self.set.insert(method.into(), fault);
    }

    pub(super) fn clear(&mut self) {
        self.set.clear();
        self.chaos = None;
        self.hostile = Hostile::default();
    }

    /// The fault of this call.
    pub(super) fn take(&mut self, method: &str) -> Fault {
        self.calls += 1;
        let Some(set) = self.set.get_mut(method) else {
            let call = self.calls;
            return self.chaos.map(|c| c.pick(call)).unwrap_or_default();
        };
        let mut fault = set.clone();
        fault.spent();
        if let Some(left) = &mut set.times {
            *left = left.saturating_sub(1);
        }
        fault
    }

    /// Whether calls of this RPC hang now, at their start or midway.
    pub(super) fn hangs(&self, method: &str) -> (bool, bool) {
        let set = self.set.get(method);
        set.map_or((false, false), |f| (f.hang, f.hang_midway))
    }

    /// Reads the control file if it has changed.
    pub(super) fn read_control(&mut self) -> Result<Option<Control>, Status> {
        let Some(path) = &self.control else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text == self.seen {
            return Ok(None);
        }
        let bad = |e: String| Status::internal(format!("cannot read the control file: {e}"));
        let control = Control::parse(&text).map_err(bad)?;
        self.set = control.faults().map_err(bad)?;
        self.ready = !control.not_ready;
        self.chaos = control.chaos;
        self.hostile = control.hostile.clone();
        self.seen = text;
        Ok(Some(control))
    }
}
