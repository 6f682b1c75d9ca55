// SPDX-License-Identifier: Apache-2.0
//! What people and runtimes write as text.

use std::{collections::BTreeMap, str::from_utf8};

use crate::{
    api::{annotation, quantity::Quantity, storage_class, template},
    config::Config,
    delivery::SpecMount,
    keys::KeySet,
    model::clean_path,
    oci::{
        self,
        edit::{self, Given, GivenDevice, GivenMount},
    },
};

/// Whoever reads them decodes them first, and refuses what is not UTF-8.
fn text(bytes: &[u8]) -> &str {
    from_utf8(bytes).unwrap_or_default()
}

/// What is read must read back from its manifest; a refusal has a reason.
pub(super) fn template(bytes: &[u8]) {
    match template::parse(text(bytes)) {
        Ok(read) => {
            let manifest = read.to_manifest().to_string();
            assert_eq!(template::parse(&manifest), Ok(read), "{manifest}");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// The same.
pub(super) fn storage_class(bytes: &[u8]) {
    match storage_class::parse(text(bytes)) {
        Ok(class) => {
            let manifest = class.to_manifest().to_string();
            assert_eq!(storage_class::parse(&manifest), Ok(class), "{manifest}");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// Line 1: the actor; line 2, where it begins with `signature:`, the signature; the
/// rest: the attachments. What is read must read back from what is written of it.
pub(super) fn annotation(bytes: &[u8]) {
    let (actor, mut attachments) = text(bytes).split_once('\n').unwrap_or(("a/b", text(bytes)));
    let mut annotations = BTreeMap::from([(annotation::ACTOR.to_owned(), actor.to_owned())]);
    let signed = attachments.strip_prefix("signature:");
    if let Some((signature, rest)) = signed.and_then(|signed| signed.split_once('\n')) {
        let key = format!("{}signature", annotation::PREFIX);
        annotations.insert(key, signature.to_owned());
        // No key is there that could have made it.
        assert!(KeySet::default().verify(rest, signature).is_err());
        attachments = rest;
    }
    annotations.insert(annotation::ATTACHMENTS.to_owned(), attachments.to_owned());
    if let Ok(presented) = annotation::read(&annotations) {
        let presented = presented.expect("there are keys of ours");
        // What is written may be longer than what was read: control characters are
        // escaped, and defaults are spelt out.
        if let Ok(written) = annotation::write(&presented.grant) {
            let again = annotation::read(&written).expect("what is written is read");
            assert_eq!(again.map(|p| p.grant), Some(presented.grant));
        }
    }
}

/// What is shown reads back.
pub(super) fn quantity(bytes: &[u8]) {
    if let Ok(quantity) = text(bytes).parse::<Quantity>() {
        assert!((1..=i64::MAX as u64).contains(&quantity.bytes()));
        let again = quantity.to_string().parse::<Quantity>();
        assert_eq!(again.ok(), Some(quantity));
    }
}

/// A refusal has a reason.
pub(super) fn config(bytes: &[u8]) {
    if let Err(refusal) = Config::parse(text(bytes)) {
        assert!(!refusal.full_message().is_empty());
    }
}

/// Before the first NUL: what is given, a word a path, one that begins with `/dev/` a
/// device; after it: a config.json. What is given again gives the same bytes, and after the
/// release nothing of it is left.
pub(super) fn oci_edit(bytes: &[u8]) {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(0);
    let (words, config) = (text(&bytes[..at]), bytes.get(at + 1..).unwrap_or(bytes));
    let mut given = Given {
        mount_root: "/m".into(),
        ..Given::default()
    };
    for word in words.split(' ').filter(|word| word.starts_with('/')) {
        if word.starts_with("/dev/") {
            given.devices.push(GivenDevice {
                path: word.into(),
                major: 7,
                minor: 1,
                read_only: false,
            });
        } else {
            given.mounts.push(GivenMount {
                destination: word.into(),
                source: "/m/x".into(),
                ..GivenMount::default()
            });
        }
    }
    let _ = edit::user_namespace(config);
    let _ = oci::maps_owners(config);
    let released = edit::release(config, &given.mount_root);
    if let Ok(with) = edit::inject(config, &given) {
        let bare = released.expect("what can be given can be released");
        assert_eq!(edit::release(&bare, &given.mount_root).ok(), Some(bare));
        // Of devices only the grant tells that they are ours.
        if given.devices.is_empty() {
            assert_eq!(edit::inject(&with, &given).ok(), Some(with.clone()));
        }
        let left = edit::release(&with, &given.mount_root).expect("it was written by us");
        let spec = oci::parse(&left).map(|read| read.spec).unwrap_or_default();
        let below = |m: &SpecMount| {
            let source = clean_path(&m.source.to_string_lossy());
            source.starts_with("/m") && source != given.mount_root
        };
        assert!(!spec.mounts.iter().any(below));
    }
}

/// As the guard reads a bundle, and as a runtime tells it through the CRI.
pub(super) fn oci_config(bytes: &[u8]) {
    let told = oci::of_status(text(bytes)).ok().flatten();
    for container in oci::parse(bytes).into_iter().chain(told) {
        if let Err(refusal) = oci::question("c1", container) {
            assert!(!refusal.full_message().is_empty());
        }
    }
}

/// As a hook reads it, and `bind`.
pub(super) fn oci_state(bytes: &[u8]) {
    match oci::State::parse(bytes) {
        Ok(state) => assert_eq!(
            state.init().ok().map(i64::from),
            Some(state.pid).filter(|pid| (1..=i64::from(u32::MAX)).contains(pid))
        ),
        Err(refusal) => assert!(!refusal.full_message().is_empty()),
    }
}
