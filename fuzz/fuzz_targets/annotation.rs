// SPDX-License-Identifier: Apache-2.0
//! A grant that is read must read back from what is written of it. The first
//! line of the input is the actor, the rest the attachments.
#![no_main]

use std::collections::BTreeMap;

use actor_volumes::api::annotation::{ACTOR, ATTACHMENTS, read, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (actor, attachments) = text.split_once('\n').unwrap_or(("a/b", text));
    let annotations = BTreeMap::from([
        (ACTOR.to_owned(), actor.to_owned()),
        (ATTACHMENTS.to_owned(), attachments.to_owned()),
    ]);
    if let Ok(presented) = read(&annotations) {
        let presented = presented.expect("there are keys of ours");
        // What is written may be longer than what was read: control characters
        // are escaped, and defaults are spelt out.
        if let Ok(written) = write(&presented.grant) {
            let again = read(&written).expect("what is written is read");
            assert_eq!(again.map(|p| p.grant), Some(presented.grant));
        }
    }
});
