// SPDX-License-Identifier: Apache-2.0
//! The values that calls carry now. A driver may say back what it was told, in the
//! text of an error: there they are blotted out.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use zeroize::Zeroize;

/// In the place of a value.
const BLOT: &str = "***";

/// A shorter value is not looked for: it stands in any text.
const SHORTEST: usize = 4;

/// Each value, and how often it is carried.
static CARRIED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// The secrets of calls, wiped when nobody has them any more.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    pub(super) fn new(values: BTreeMap<String, String>) -> Self {
        let mut carried = CARRIED.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values.values().filter(|v| v.len() >= SHORTEST) {
            *carried.entry(value.clone()).or_default() += 1;
        }
        Self(values)
    }

    pub(super) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let mut carried = CARRIED.lock().unwrap_or_else(PoisonError::into_inner);
        for value in self.0.values_mut() {
            if let Some(count) = carried.get_mut(value) {
                *count -= 1;
                if *count == 0
                    && let Some((mut value, _)) = carried.remove_entry(value)
                {
                    value.zeroize();
                }
            }
            value.zeroize();
        }
    }
}

/// The text without any secret that is carried now.
pub fn blotted(text: &str) -> Cow<'_, str> {
    let carried = CARRIED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found: Vec<&String> = carried.keys().filter(|v| text.contains(*v)).collect();
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    // One may be a part of another.
    found.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let blot = |text: String, value: &&String| text.replace(*value, BLOT);
    Cow::Owned(found.iter().fold(text.to_owned(), blot))
}

#[cfg(test)]
mod tests {
    use super::super::Secrets;
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let pair = |v: &&str| ((*v).to_owned(), (*v).to_owned());
        values.iter().map(pair).collect()
    }

    #[test]
    fn what_a_call_carries_is_blotted_out_for_as_long_as_it_is_carried() {
        let one = secrets(&["quite-hidden", "quite-hidden-too", "abc"]);
        let text = "no: quite-hidden-too, quite-hidden, abc";
        assert_eq!(blotted(text), "no: ***, ***, abc");
        let other = secrets(&["quite-hidden"]);
        let clone = one.clone();
        drop(one);
        assert_eq!(blotted(text), "no: ***, ***, abc");
        drop(clone);
        assert_eq!(blotted(text), "no: ***-too, ***, abc");
        drop(other);
        assert_eq!(blotted(text), text);
    }
}
