// SPDX-License-Identifier: Apache-2.0
//! Any bytes on a stream of the multiplexer are read without a panic.
#![no_main]

use actor_volumes::nri::ttrpc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = ttrpc::decode(bytes);
});
