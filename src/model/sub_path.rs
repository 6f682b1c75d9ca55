// SPDX-License-Identifier: Apache-2.0
//! A directory of a volume, by its path from the volume's root.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A sub path has at most so many bytes.
const MAX_BYTES: usize = 1024;

/// Each of its parts has at most so many, as file systems have it.
const MAX_PART_BYTES: usize = 255;

/// It has at most so many parts.
const MAX_PARTS: usize = 64;

/// A directory of a volume: relative, of plain names alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubPath(String);

impl SubPath {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names, from the volume's root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The name of the directory at which it is shown on the host: nothing that
    /// anybody wrote becomes a part of a path there.
    pub fn key(&self) -> String {
        hex::encode(&Sha256::digest(&self.0)[..8])
    }
}

impl FromStr for SubPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(format!(
                "{why}: name a directory of the volume, such as data/cache"
            )))
        };
        if text.is_empty() {
            return refuse("it must not be empty");
        }
        if text.len() > MAX_BYTES {
            return refuse(&format!("it must have at most {MAX_BYTES} bytes"));
        }
        if text.starts_with('/') {
            return refuse("it must not begin with /");
        }
        if text.chars().any(char::is_control) {
            return refuse("it must not hold control characters");
        }
        let mut parts = 0;
        for part in text.split('/') {
            parts += 1;
            match part {
                "" => return refuse("it must not have empty parts, nor end with /"),
                "." | ".." => return refuse(&format!("it must not have the part {part:?}")),
                _ if part.len() > MAX_PART_BYTES => {
                    return refuse(&format!(
                        "each part must have at most {MAX_PART_BYTES} bytes"
                    ));
                }
                _ => {}
            }
        }
        if parts > MAX_PARTS {
            return refuse(&format!("it must have at most {MAX_PARTS} parts"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SubPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SubPath> for String {
    fn from(path: SubPath) -> Self {
        path.0
    }
}

impl fmt::Display for SubPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_relative_paths_are_taken_and_others_refused() {
        let part = "x".repeat(MAX_PART_BYTES);
        let deep = ["d"; MAX_PARTS].join("/");
        for good in ["a", "a/b", "..a", "a..", "...", "a b/ä", &part, &deep] {
            assert_eq!(good.parse::<SubPath>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "/a",
            ".",
            "..",
            "a/..",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "a/./b",
            "a\0b",
            "a\nb",
            &format!("{part}x"),
            &format!("{deep}/d"),
            &"a/".repeat(600),
        ] {
            assert!(bad.parse::<SubPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_path_has_a_key_of_its_own() {
        let key = |text: &str| text.parse::<SubPath>().unwrap().key();
        assert_eq!(key("a").len(), 16);
        assert_ne!(key("a"), key("b"));
        assert_eq!(key("a/b"), key("a/b"));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_leads_down_alone(text in "[a./\\x00é]{0,12}|\\PC{0,40}") {
            if let Ok(path) = text.parse::<SubPath>() {
                prop_assert!(Path::new(path.as_str()).components().all(|c| matches!(c, Component::Normal(_))));
                let parts: Vec<_> = path.parts().collect();
                prop_assert_eq!(parts.join("/"), &text[..]);
                prop_assert_eq!(Path::new(&text).components().count(), parts.len());
                let json = serde_json::to_string(&path).unwrap();
                prop_assert_eq!(serde_json::from_str::<SubPath>(&json).unwrap(), path);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            let _ = text.parse::<SubPath>();
        }
    }
}
