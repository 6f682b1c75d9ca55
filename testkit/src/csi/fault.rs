// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, by RPC: set by a test, or read from a control file.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use tonic::{Code, Status};

/// What happens to the calls of one RPC, in this order: they wait, hang, fail;
/// or they are carried out and the answer is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Each call takes this much longer.
    pub delay: Duration,
    /// Calls wait until the fault is cleared, and are carried out then.
    pub hang: bool,
    /// Calls are not carried out, and answered with this code.
    pub fail: Option<Code>,
    /// Calls are carried out, and answered with UNAVAILABLE all the same.
    pub lose_answer: bool,
    /// `fail` and `lose_answer` end after so many calls; none: when cleared.
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

    /// Is carried out, but nobody hears of it.
    pub fn lose_answer() -> Self {
        Self {
            lose_answer: true,
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
}

/// The control file, such as
/// `{"delay_ms":{"NodePublishVolume":3000},"fail":{"CreateVolume":"Aborted"},"times":{"CreateVolume":2}}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Control {
    delay_ms: HashMap<String, u64>,
    hang: HashMap<String, bool>,
    fail: HashMap<String, String>,
    lose_answer: HashMap<String, bool>,
    times: HashMap<String, u32>,
    not_ready: bool,
}

pub(super) struct Faults {
    pub(super) ready: bool,
    set: BTreeMap<String, Fault>,
    control: Option<PathBuf>,
    /// The control file as it was read last.
    seen: String,
}

impl Faults {
    pub(super) fn new(control: Option<PathBuf>) -> Self {
        Self {
            ready: true,
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
    }

    /// The fault that holds for the next call of this RPC; counts it.
    pub(super) fn take(&mut self, method: &str) -> Result<Fault, Status> {
        let fault = self.peek(method)?;
        if let Some(set) = self.set.get_mut(method)
            && let Some(left) = &mut set.times
        {
            *left = left.saturating_sub(1);
        }
        Ok(fault)
    }

    /// The fault that holds now.
    pub(super) fn peek(&mut self, method: &str) -> Result<Fault, Status> {
        self.read_control()
            .map_err(|e| Status::internal(format!("cannot read the control file: {e}")))?;
        let mut fault = self.set.get(method).cloned().unwrap_or_default();
        if fault.times == Some(0) {
            fault.fail = None;
            fault.lose_answer = false;
        }
        Ok(fault)
    }

    fn read_control(&mut self) -> Result<(), String> {
        let Some(path) = &self.control else {
            return Ok(());
        };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text == self.seen {
            return Ok(());
        }
        let control: Control = if text.trim().is_empty() {
            Control::default()
        } else {
            serde_json::from_str(&text).map_err(|e| e.to_string())?
        };
        let mut set: BTreeMap<String, Fault> = BTreeMap::new();
        for (method, ms) in control.delay_ms {
            set.entry(method).or_default().delay = Duration::from_millis(ms);
        }
        for (method, hang) in control.hang {
            set.entry(method).or_default().hang = hang;
        }
        for (method, lose) in control.lose_answer {
            set.entry(method).or_default().lose_answer = lose;
        }
        for (method, name) in control.fail {
            let code = (1..=16).map(Code::from).find(|c| format!("{c:?}") == name);
            let code = code.ok_or_else(|| format!("{name:?} is no gRPC code"))?;
            set.entry(method).or_default().fail = Some(code);
        }
        for (method, times) in control.times {
            set.entry(method).or_default().times = Some(times);
        }
        self.set = set;
        self.ready = !control.not_ready;
        self.seen = text;
        Ok(())
    }
}
