// SPDX-License-Identifier: Apache-2.0
//! Who stands at a door.

use std::{fmt, str::FromStr};

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::error::{Error, Result};

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// The user of a process on this host, as the kernel tells.
    Uid(u32),
    /// The names of a certificate that has been verified.
    Names(Vec<String>),
}

impl Peer {
    /// The names in the first of these certificates.
    pub(in crate::transport) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let own = certificates.and_then(<[_]>::first);
        Self::Names(own.map(|c| super::super::names_of(c)).unwrap_or_default())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Names(names) => write!(f, "a certificate for {names:?}"),
        }
    }
}

/// A name that may connect, or `*` in the place of any letters, as in `node-*.east`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether this is such a name. Names of hosts have no case.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        let Some(mut rest) = rest.strip_suffix(last) else {
            return false;
        };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else {
                return false;
            };
            rest = after;
        }
        true
    }
}

impl FromStr for NamePattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.*".contains(&b);
        if text.is_empty() || text.len() > 253 || !text.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "{text:?} must be the name of a node, of letters, digits, - and ., with * for any letters"
            )));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_alone() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "node-a",
                &["node-a", "Node-A"],
                &["node-ab", "xnode-a", "node", ""],
            ),
            ("node-*", &["node-a", "node-"], &["node", "a.node-a"]),
            ("*.east", &["a.east", ".east"], &["east", "a.east.x"]),
            ("a*b*c", &["abc", "a1b2c", "abbc"], &["ac", "abcx", "ab"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*", &["", "x"], &[]),
        ];
        for (pattern, good, bad) in cases {
            let pattern: NamePattern = pattern.parse().unwrap();
            for name in *good {
                assert!(pattern.matches(name), "{pattern} {name}");
            }
            for name in *bad {
                assert!(!pattern.matches(name), "{pattern} {name}");
            }
        }
        for bad in ["", "a b", "é", "a/b"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_without_a_star_is_its_name(name in "[a-z0-9.-]{1,20}", other in "[a-z0-9.-]{0,20}") {
            let pattern: NamePattern = name.parse().unwrap();
            proptest::prop_assert!(pattern.matches(&name));
            proptest::prop_assert_eq!(pattern.matches(&other), name == other);
        }
    }
}
