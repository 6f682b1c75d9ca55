// SPDX-License-Identifier: Apache-2.0
//! A class that is read must read back from its manifest; a refusal has a reason.
#![no_main]

use actor_volumes::api::storage_class::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(class) => {
            let manifest = class.to_manifest().to_string();
            assert_eq!(parse(&manifest), Ok(class), "{manifest}");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
});
