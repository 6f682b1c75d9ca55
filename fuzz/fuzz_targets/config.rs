// SPDX-License-Identifier: Apache-2.0
//! Any configuration is read without a panic, and a refusal has a reason.
#![no_main]

use actor_volumes::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(refusal) = Config::parse(text) {
        assert!(!refusal.full_message().is_empty());
    }
});
