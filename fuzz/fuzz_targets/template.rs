// SPDX-License-Identifier: Apache-2.0
//! A template that is read must read back from its manifest; a refusal has a reason.
#![no_main]

use actor_volumes::api::template::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(template) => {
            let manifest = template.to_manifest().to_string();
            assert_eq!(parse(&manifest), Ok(template), "{manifest}");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
});
