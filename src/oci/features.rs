// SPDX-License-Identifier: Apache-2.0
//! What a runtime tells of itself by `features`. Pure.

use serde_json::Value;

/// Whether it can map the owners of mounts.
pub fn maps_owners(features: &[u8]) -> bool {
    let told: Value = serde_json::from_slice(features).unwrap_or_default();
    told["linux"]["mountExtensions"]["idmap"]["enabled"] == true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_told_counts() {
        let told = br#"{"linux":{"mountExtensions":{"idmap":{"enabled":true}}}}"#;
        assert!(maps_owners(told));
        for other in [
            &br#"{"linux":{"mountExtensions":{"idmap":{"enabled":false}}}}"#[..],
            br#"{"linux":{}}"#,
            b"[]",
            b"unknown command features",
        ] {
            assert!(!maps_owners(other));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = maps_owners(&bytes);
        }
    }
}
