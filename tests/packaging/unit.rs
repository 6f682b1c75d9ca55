// SPDX-License-Identifier: Apache-2.0
//! A reader of systemd's units.

use std::collections::BTreeMap;

/// What a unit says: all values of a key, in their order.
pub(crate) struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            if let Some((key, value)) = line.split_once('=') {
                keys.entry(key.into()).or_default().push(value.into());
            }
        }
        Self(keys)
    }

    /// The words of all values of a key; none: the key is not there.
    pub(crate) fn words(&self, key: &str) -> Option<Vec<&str>> {
        let values = self.0.get(key)?;
        Some(values.iter().flat_map(|v| v.split_whitespace()).collect())
    }

    pub(crate) fn one(&self, key: &str) -> Option<&str> {
        match self.0.get(key)?.as_slice() {
            [one] => Some(one),
            more => panic!("{key} stands {} times", more.len()),
        }
    }

    pub(crate) fn has_any(&self, keys: &[&str]) -> Option<String> {
        let found = keys.iter().find(|k| self.0.contains_key(**k));
        found.map(|k| (*k).to_owned())
    }
}
