// SPDX-License-Identifier: Apache-2.0
//! What it does stands in src/fuzz.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| actor_volumes::fuzz::run("oci_edit", bytes));
