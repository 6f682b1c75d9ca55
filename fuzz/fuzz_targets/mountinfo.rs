// SPDX-License-Identifier: Apache-2.0
//! Any mount table is read without a panic.
#![no_main]

use actor_volumes::host::mountinfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|table: &[u8]| {
    let _ = mountinfo::parse(table);
});
