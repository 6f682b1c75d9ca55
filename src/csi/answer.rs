// SPDX-License-Identifier: Apache-2.0
//! What a driver tells of itself and its volumes, before anybody works with it. It is
//! kept, shown and told to others: none of it may be endless, or move a terminal.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The most that a map may hold (CSI spec, size limits).
const MAX_MAP: usize = 4096;

/// The most places that a volume may be accessible from.
const MAX_PLACES: usize = 256;

/// An id: so many bytes at most, and no control characters. It never becomes a part
/// of a path.
pub(super) fn check_id(what: &str, id: &str, max: usize) -> Result<()> {
    if id.is_empty() || id.len() > max {
        return Err(Error::internal(format!(
            "the driver answered with a {what} of {} bytes: it must have 1 to {max}",
            id.len()
        )));
    }
    if id.chars().any(char::is_control) {
        return Err(Error::internal(format!(
            "the driver answered with a {what} that holds control characters: {id:?}"
        )));
    }
    Ok(())
}

/// A context is passed back as it is, and never shown: only its size counts.
pub(super) fn check_context(field: &str, context: &BTreeMap<String, String>) -> Result<()> {
    let size = size(context);
    if size <= MAX_MAP {
        return Ok(());
    }
    Err(Error::internal(format!(
        "the driver answered with a {field} of {size} bytes: CSI allows {MAX_MAP}"
    )))
}

/// The segments of a place.
pub(super) fn check_topology(segments: &BTreeMap<String, String>) -> Result<()> {
    let size = size(segments);
    if size > MAX_MAP {
        return Err(Error::internal(format!(
            "the driver answered with a topology of {size} bytes: CSI allows {MAX_MAP}"
        )));
    }
    for (key, value) in segments {
        if key.is_empty() || key.chars().chain(value.chars()).any(char::is_control) {
            return Err(Error::internal(format!(
                "the driver answered with a topology whose key is empty, or that holds control characters: {key:?}"
            )));
        }
    }
    Ok(())
}

/// All places that a volume is accessible from.
pub(super) fn check_places(places: &[BTreeMap<String, String>]) -> Result<()> {
    if places.len() > MAX_PLACES {
        return Err(Error::internal(format!(
            "the driver answered with {} topologies for one volume: at most {MAX_PLACES}",
            places.len()
        )));
    }
    places.iter().try_for_each(check_topology)
}

fn size(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(k, v)| k.len() + v.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_any_text_of_its_length_without_control_characters() {
        for good in ["v", "../../etc/passwd", "a b#/ü", &"x".repeat(128)] {
            check_id("volume id", good, 128).unwrap();
        }
        for (bad, why) in [
            ("", "0 bytes"),
            (&"x".repeat(129), "129 bytes"),
            ("a\nb", "control characters: \"a\\nb\""),
            ("a\0", "control characters"),
            ("\u{1b}[2J", "control characters"),
            ("\u{85}", "control characters"),
        ] {
            let refused = check_id("volume id", bad, 128).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert!(!refused.chars().any(char::is_control), "{refused:?}");
        }
    }

    #[test]
    fn a_topology_has_keys_and_an_end() {
        let place = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        check_places(&[place("topology.example/zone", "z1"), place("a", "")]).unwrap();
        for (bad, why) in [
            (place("", "z"), "key is empty"),
            (place("a\n", "z"), "control characters"),
            (place("a", "\u{1b}[31m"), "control characters"),
            (place("a", &"x".repeat(4096)), "4097 bytes"),
        ] {
            let refused = check_places(&[bad]).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let many = vec![place("a", "b"); 257];
        assert!(check_places(&many).is_err());
    }
}
