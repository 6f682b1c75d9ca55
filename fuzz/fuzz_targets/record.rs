// SPDX-License-Identifier: Apache-2.0
//! A record that is read is written as the same record.
#![no_main]

use actor_volumes::node::VolumeRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = VolumeRecord::decode(bytes) {
        assert_eq!(VolumeRecord::decode(&record.encode()).ok(), Some(record));
    }
});
