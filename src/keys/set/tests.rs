// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;
use crate::{error::Kind, keys::PrivateKey};

/// The last character of a signature stands for two bits and four that are zero.
const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn set(keys: &[&PrivateKey]) -> KeySet {
    keys.iter().map(|k| k.public().clone()).collect()
}

#[test]
fn only_a_trusted_key_counts_and_only_over_these_very_bytes() {
    let (one, other) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let text = r#"{"version":1}"#;
    let made = one.sign(text);
    assert!(set(&[&one]).verify(text, &made).is_ok());
    assert!(set(&[&other, &one]).verify(text, &made).is_ok());
    let unknown = set(&[&other]).verify(text, &made).unwrap_err();
    assert_eq!(unknown.kind(), Kind::Unavailable);
    assert!(unknown.to_string().contains(one.public().id().as_str()));
    assert!(set(&[&other]).lacks_the_key_of(&made));
    assert!(!set(&[&one]).lacks_the_key_of(&made));
    let none = KeySet::default().verify(text, &made).unwrap_err();
    assert!(none.to_string().contains("trusts none"), "{none}");
    for near in [r#"{"version":1} "#, r#"{"version": 1}"#, ""] {
        let changed = set(&[&one]).verify(near, &made).unwrap_err();
        assert_eq!(changed.kind(), Kind::PermissionDenied, "{near}");
    }
    // Another key's id before it makes it no signature of that key.
    let (_, encoded) = made.split_once('.').unwrap();
    let borrowed = format!("{}.{encoded}", other.public().id());
    let refused = set(&[&one, &other]).verify(text, &borrowed).unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
}

#[test]
fn a_signature_without_our_first_line_is_none() {
    use ed25519_dalek::{Signer, SigningKey};
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = PublicKey::new(key.verifying_key()).unwrap();
    let text = r#"{"version":1}"#;
    let set: KeySet = [public.clone()].into_iter().collect();
    let bare = signature::write(public.id(), &key.sign(text.as_bytes()).to_bytes());
    assert!(set.verify(text, &bare).is_err());
    let lined = format!("actor-volumes.dev/v1\n{text}");
    let good = signature::write(public.id(), &key.sign(lined.as_bytes()).to_bytes());
    assert!(set.verify(text, &good).is_ok());
}

#[test]
fn a_signature_has_one_spelling() {
    let key = PrivateKey::generate().unwrap();
    let made = key.sign("x");
    let (id, encoded) = made.split_once('.').unwrap();
    for text in [
        String::new(),
        ".".into(),
        id.into(),
        encoded.into(),
        format!("{id}.{encoded}="),
        format!("{id}.{encoded}=="),
        format!(" {made}"),
        format!("{made}\n"),
        format!("{}.{encoded}", id.to_uppercase()),
        format!("{id}:{encoded}"),
        format!("{id}.{}", &encoded[1..]),
        format!("{id}.{}+", &encoded[1..]),
        "é".repeat(made.len() / 2),
        "0".repeat(made.len()),
        "x".repeat(1 << 20),
    ] {
        // An id of letters and one without is the same where it has none.
        if text == made {
            continue;
        }
        let refused = set(&[&key]).verify("x", &text).unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidInput, "{text:.100}");
        assert!(!set(&[]).lacks_the_key_of(&text));
    }
    // Bits that stand for nothing are zero.
    let (head, last) = encoded.split_at(encoded.len() - 1);
    let value = DIGITS
        .iter()
        .position(|d| *d == last.as_bytes()[0])
        .unwrap();
    for bits in 1..16 {
        let twin = char::from(DIGITS[value | bits]);
        let refused = set(&[&key]).verify("x", &format!("{id}.{head}{twin}"));
        assert_eq!(refused.unwrap_err().kind(), Kind::InvalidInput);
    }
}

#[test]
fn an_s_beyond_the_order_of_the_group_is_refused() {
    // S + L is the same scalar, and must not be another signature.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let key = PrivateKey::generate().unwrap();
    let (id, mut bytes) = signature::read(&key.sign("x")).unwrap();
    let mut carry = 0;
    for (digit, add) in bytes[32..].iter_mut().zip(L) {
        let sum = u16::from(*digit) + u16::from(add) + carry;
        *digit = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    let twin = signature::write(&id, &bytes);
    let refused = set(&[&key]).verify("x", &twin).unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied);
}

/// SPKI of these 32 bytes.
fn pem(key: &[u8; 32]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let prefix = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let der = [&prefix[..], key].concat();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der)
    )
}

#[test]
fn a_key_of_small_order_or_in_another_spelling_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    // Of order 8.
    let eight: [u8; 32] =
        hex::decode("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
            .unwrap()
            .try_into()
            .unwrap();
    let mut signs = vec![[0; 32], one, minus_one, eight];
    // Coordinates from the prime on.
    for low in 0xed..=0xff_u8 {
        let mut beyond = [0xff; 32];
        beyond[0] = low;
        beyond[31] = 0x7f;
        signs.push(beyond);
    }
    for mut bytes in signs {
        for sign in [0, 0x80] {
            bytes[31] = (bytes[31] & 0x7f) | sign;
            let refused = PublicKey::from_pem(&pem(&bytes));
            assert!(refused.is_err(), "{}", hex::encode(bytes));
        }
    }
    // The first key of RFC 8032 is one.
    let good = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert!(PublicKey::from_pem(&pem(&good.unwrap().try_into().unwrap())).is_ok());
}

#[test]
fn keys_of_other_tools_are_read_and_ours_are_written_as_theirs() {
    // RFC 8410, section 10.3: a private key that is public knowledge.
    let theirs = "-----BEGIN PRIVATE KEY-----\n\
                  MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                  -----END PRIVATE KEY-----\n";
    let key = PrivateKey::from_pem(theirs).unwrap();
    assert_eq!(*key.to_pem().unwrap(), theirs);
    // RFC 8410, section 10.1.
    let public = "-----BEGIN PUBLIC KEY-----\n\
                  MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                  -----END PUBLIC KEY-----\n";
    assert_eq!(key.public().to_pem().unwrap(), public);
    assert_eq!(PublicKey::from_pem(public).unwrap(), *key.public());
    assert_eq!(
        format!("{key:?}"),
        format!("PrivateKey({})", key.public().id())
    );
    for broken in [
        "",
        "x",
        public,
        &theirs[..80],
        &theirs.replace("MC4", "MC5"),
    ] {
        assert!(PrivateKey::from_pem(broken).is_err(), "{broken}");
    }
    for broken in ["", "x", theirs, &public[..60], &public.repeat(2)] {
        assert!(PublicKey::from_pem(broken).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn a_signature_counts_until_a_byte_of_it_or_of_the_attachments_is_changed(
        text in "\\PC{1,200}",
        at in any::<prop::sample::Index>(),
        to in any::<char>(),
    ) {
        let key = PrivateKey::generate().unwrap();
        let set = set(&[&key]);
        let made = key.sign(&text);
        prop_assert!(set.verify(&text, &made).is_ok());
        let changed = |whole: &str| {
            let chars: Vec<char> = whole.chars().collect();
            let at = at.index(chars.len());
            let mut other = chars.clone();
            other[at] = to;
            let cut: String = chars[..at].iter().collect();
            let less: String = [&chars[..at], &chars[at + 1..]].concat().iter().collect();
            [other.into_iter().collect(), cut, less]
        };
        for other in changed(&text) {
            if other != text {
                prop_assert!(set.verify(&other, &made).is_err());
            }
        }
        for other in changed(&made) {
            if other != made {
                prop_assert!(set.verify(&text, &other).is_err());
            }
        }
    }

    #[test]
    fn no_bytes_break_the_readers(text in "\\PC{0,200}") {
        let key = PrivateKey::generate().unwrap();
        prop_assert!(set(&[&key]).verify("x", &text).is_err());
        prop_assert!(PublicKey::from_pem(&text).is_err());
        prop_assert!(PrivateKey::from_pem(&text).is_err());
    }
}
