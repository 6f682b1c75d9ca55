// SPDX-License-Identifier: Apache-2.0
//! The control file: faults for those who drive from another process.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use tonic::Code;

use super::{Chaos, Fault, Hostile};

/// The control file, such as
/// `{"delay_ms":{"NodePublishVolume":3000},"fail":{"CreateVolume":"Aborted"},"times":{"CreateVolume":2}}`.
/// What it does not name is as without it. The maps with methods as their keys
/// are the fields of [`Fault`].
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    delay_ms: HashMap<String, u64>,
    hang: HashMap<String, bool>,
    fail: HashMap<String, String>,
    lie: HashMap<String, bool>,
    hang_midway: HashMap<String, bool>,
    fail_after: HashMap<String, String>,
    lose_answer: HashMap<String, bool>,
    times: HashMap<String, u32>,
    /// Probe says that it is not ready.
    pub not_ready: bool,
    /// Faults at random for all RPCs that no other fault is set for.
    pub chaos: Option<Chaos>,
    /// Answers that no driver should give.
    pub hostile: Hostile,
    /// Ids of volumes to forget, once; `*` for all.
    pub forget: Vec<String>,
    /// Nodes that are gone for good, once: nothing needs to be unmounted there.
    pub fence: Vec<String>,
    /// The message of the abnormal condition of a volume, by its id.
    pub abnormal: BTreeMap<String, String>,
    /// What happens, once, to the FUSE servers of a volume, by its id.
    pub fuse: BTreeMap<String, FuseOrder>,
}

/// What happens to a FUSE server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FuseOrder {
    /// It dies: its mounts answer ENOTCONN.
    Kill,
    /// It stops: whoever looks into its mounts hangs.
    Freeze,
    /// It goes on.
    Thaw,
}

impl Control {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    pub(super) fn faults(&self) -> Result<BTreeMap<String, Fault>, String> {
        let mut set: BTreeMap<String, Fault> = BTreeMap::new();
        for (method, ms) in &self.delay_ms {
            set.entry(method.clone()).or_default().delay = std::time::Duration::from_millis(*ms);
        }
        let mut flags = |from: &HashMap<String, bool>, put: fn(&mut Fault, bool)| {
            for (method, flag) in from {
                put(set.entry(method.clone()).or_default(), *flag);
            }
        };
        flags(&self.hang, |f, v| f.hang = v);
        flags(&self.lie, |f, v| f.lie = v);
        flags(&self.hang_midway, |f, v| f.hang_midway = v);
        flags(&self.lose_answer, |f, v| f.lose_answer = v);
        for (method, name) in &self.fail {
            set.entry(method.clone()).or_default().fail = Some(code(name)?);
        }
        for (method, name) in &self.fail_after {
            set.entry(method.clone()).or_default().fail_after = Some(code(name)?);
        }
        for (method, times) in &self.times {
            set.entry(method.clone()).or_default().times = Some(*times);
        }
        Ok(set)
    }
}

fn code(name: &str) -> Result<Code, String> {
    let code = (1..=16).map(Code::from).find(|c| format!("{c:?}") == name);
    code.ok_or_else(|| format!("{name:?} is no gRPC code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_fault_can_be_set_and_nonsense_is_refused() {
        let all = r#"{"delay_ms":{"A":5},"hang":{"A":true},"fail":{"A":"Internal"},
            "lie":{"A":true},"hang_midway":{"A":true},"fail_after":{"A":"Aborted"},
            "lose_answer":{"A":true},"times":{"A":3}}"#;
        let faults = Control::parse(all).unwrap().faults().unwrap();
        let expected = Fault {
            delay: std::time::Duration::from_millis(5),
            hang: true,
            fail: Some(Code::Internal),
            lie: true,
            hang_midway: true,
            fail_after: Some(Code::Aborted),
            lose_answer: true,
            times: Some(3),
        };
        assert_eq!(faults["A"], expected);
        assert!(Control::parse("{\"lies\":{}}").is_err());
        let odd = Control::parse(r#"{"fail":{"A":"Nonsense"}}"#).unwrap();
        assert!(odd.faults().is_err());
    }
}
