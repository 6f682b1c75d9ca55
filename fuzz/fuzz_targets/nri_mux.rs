// SPDX-License-Identifier: Apache-2.0
//! Any bytes on the NRI socket are read without a panic.
#![no_main]

use actor_volumes::nri::mux;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = mux::decode(bytes);
});
