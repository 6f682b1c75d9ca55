// SPDX-License-Identifier: Apache-2.0
//! Where a volume can be reached from (CSI spec, `Topology`).

use std::collections::BTreeMap;

/// The segments of one place: all of them hold together.
pub type Topology = BTreeMap<String, String>;

/// Whether a node with these segments reaches a volume that is accessible from
/// any of the places; no place at all stands for everywhere.
///
/// Keys are compared without regard to case, values exactly (CSI spec).
pub fn reaches(node: &Topology, places: &[Topology]) -> bool {
    let has = |key: &str, value: &str| {
        node.iter()
            .any(|(k, v)| k.eq_ignore_ascii_case(key) && v == value)
    };
    places.is_empty()
        || places
            .iter()
            .any(|place| place.iter().all(|(key, value)| has(key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segments: &[(&str, &str)]) -> Topology {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        segments.iter().map(owned).collect()
    }

    #[test]
    fn a_node_reaches_a_volume_through_any_place_all_of_whose_segments_it_has() {
        let node = place(&[("x/zone", "z1"), ("x/rack", "r1")]);
        assert!(reaches(&node, &[]));
        assert!(reaches(&node, &[place(&[("X/Zone", "z1")])]));
        assert!(!reaches(&node, &[place(&[("x/zone", "Z1")])]));
        assert!(!reaches(
            &node,
            &[place(&[("x/zone", "z1"), ("x/rack", "r2")])]
        ));
        let either = [place(&[("x/zone", "z2")]), place(&[("x/rack", "r1")])];
        assert!(reaches(&node, &either));
        assert!(!reaches(&Topology::new(), &either));
    }
}
