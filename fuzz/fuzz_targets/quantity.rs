// SPDX-License-Identifier: Apache-2.0
//! A quantity that is read must read back from what is shown of it.
#![no_main]

use actor_volumes::api::quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<Quantity>() {
        assert!((1..=i64::MAX as u64).contains(&quantity.bytes()));
        assert_eq!(quantity.to_string().parse::<Quantity>().ok(), Some(quantity));
    }
});
