// SPDX-License-Identifier: Apache-2.0
//! What is asked of the helper, and its answer. Pure.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    host::mountinfo::Identity,
    model::{Scope, SubPath, VolumeKey},
};

/// A request or an answer is one line of at most so many bytes.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// One deed at one publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Where.
    pub place: Place,
    /// What.
    pub deed: Deed,
}

/// A publication, by the names of its directories: no path, and nothing that
/// anybody chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// The directory of the volume.
    pub volume: Hex<32>,
    /// The directory of the scope.
    pub publication: Hex<16>,
}

/// What is to be done there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Deed {
    /// Say whether the root of the mount answers.
    Probe {},
    /// Give the root directory of the mount to a group; nothing below it.
    Own {
        /// What the mount there must show.
        shows: Identity,
        /// The numeric group.
        gid: u32,
    },
    /// Say whether the mount can be shown with its owners mapped by the user namespace
    /// of a process.
    MapIds {
        /// What the mount that is published must show.
        shows: Identity,
        /// The process.
        process: u32,
    },
    /// Show a directory of the volume at a place of its own, anew where it is
    /// shown already.
    Show {
        /// What the mount that is published must show.
        shows: Identity,
        /// The directory.
        sub_path: SubPath,
        /// Whether it is made where it is missing.
        make: bool,
    },
    /// Take a directory of the volume away from its place; it is no error if it is
    /// not there.
    Hide {
        /// The directory.
        sub_path: SubPath,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// It is done.
    Done {
        /// Whether anything was to be done.
        changed: bool,
    },
    /// It failed.
    Failed {
        /// The errno, where there is one.
        errno: Option<i32>,
        /// What failed.
        message: String,
    },
    /// It did not end in time.
    Hangs {
        /// Not even when it was killed.
        stuck: bool,
    },
    /// Another deed at this volume has not ended.
    Busy {},
    /// The request itself was not taken.
    Refused {
        /// Why.
        message: String,
    },
}

/// So many lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const DIGITS: usize>(String);

impl<const DIGITS: usize> Hex<DIGITS> {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const DIGITS: usize> TryFrom<String> for Hex<DIGITS> {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == DIGITS && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err(Error::invalid(format!(
                "a name in the mount root is {DIGITS} hexadecimal digits"
            )))
        }
    }
}

impl<const DIGITS: usize> From<Hex<DIGITS>> for String {
    fn from(hex: Hex<DIGITS>) -> Self {
        hex.0
    }
}

impl<const DIGITS: usize> fmt::Debug for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Place {
    /// Where the volume is published for the scope.
    pub fn of(volume: &VolumeKey, scope: &Scope) -> Self {
        Self {
            volume: Hex(volume.hash()),
            publication: Hex(scope.key().as_str().to_owned()),
        }
    }

    /// `<mount root>/<32 hex>/pub`
    pub fn publications(&self, root: &Path) -> PathBuf {
        root.join(self.volume.as_str()).join("pub")
    }

    /// `<mount root>/<32 hex>/pub/<16 hex>`, where the driver publishes.
    pub fn target(&self, root: &Path) -> PathBuf {
        self.publications(root).join(self.publication.as_str())
    }

    /// `<mount root>/<32 hex>/pub/<16 hex>.sub`, where directories of the volume are
    /// shown: beside the driver's target, not in it.
    pub fn sub_paths(&self, root: &Path) -> PathBuf {
        let name = format!("{}.sub", self.publication.as_str());
        self.publications(root).join(name)
    }

    /// `<mount root>/<32 hex>/pub/<16 hex>.sub/<16 hex>`
    pub fn sub_path(&self, root: &Path, sub_path: &SubPath) -> PathBuf {
        self.sub_paths(root).join(sub_path.key())
    }
}

impl Request {
    /// Reads a line.
    pub fn decode(line: &[u8]) -> Result<Self> {
        decode(line).map_err(|e| e.context("not a request to the helper"))
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl Answer {
    /// Reads a line.
    pub fn decode(line: &[u8]) -> Result<Self> {
        decode(line).map_err(|e| e.context("not an answer of the helper"))
    }

    /// The line.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    if line.len() > MAX_LINE {
        return Err(Error::invalid(format!("longer than {MAX_LINE} bytes")));
    }
    serde_json::from_slice(line).map_err(|e| Error::invalid(e.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("a line is made of plain values");
    line.push(b'\n');
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::helper) fn place() -> Place {
        Place {
            volume: "0a".repeat(16).try_into().unwrap(),
            publication: "0b".repeat(8).try_into().unwrap(),
        }
    }

    #[test]
    fn a_request_and_an_answer_read_back_as_they_were() {
        let shows = Identity {
            device: "8:1".into(),
            root: "/a".into(),
        };
        let sub_path: SubPath = "a/b \u{e9}".parse().unwrap();
        let deeds = [
            Deed::Probe {},
            Deed::Own {
                shows: shows.clone(),
                gid: 0,
            },
            Deed::MapIds {
                shows: shows.clone(),
                process: 1,
            },
            Deed::Show {
                shows,
                sub_path: sub_path.clone(),
                make: true,
            },
            Deed::Hide { sub_path },
        ];
        for deed in deeds {
            let request = Request {
                place: place(),
                deed,
            };
            assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
        let failed = Answer::Failed {
            errno: Some(5),
            message: "two\nlines".into(),
        };
        for answer in [
            Answer::Done { changed: true },
            failed,
            Answer::Hangs { stuck: false },
            Answer::Busy {},
        ] {
            let line = answer.encode();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            assert_eq!(Answer::decode(&line).unwrap(), answer);
        }
    }

    #[test]
    fn a_name_that_is_no_hash_is_refused() {
        for bad in [
            "",
            "..",
            "../../../../../../../../../../..",
            &"A".repeat(32),
        ] {
            assert!(Hex::<32>::try_from(bad.to_owned()).is_err(), "{bad}");
            let line = format!(
                r#"{{"place":{{"volume":"{bad}","publication":"{}"}},"deed":{{"probe":{{}}}}}}"#,
                "0".repeat(16)
            );
            assert!(Request::decode(line.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_or_deed_is_refused() {
        let good = String::from_utf8(
            Request {
                place: place(),
                deed: Deed::Own {
                    shows: Identity {
                        device: "8:1".into(),
                        root: "/".into(),
                    },
                    gid: 2,
                },
            }
            .encode(),
        )
        .unwrap();
        for (from, to) in [
            ("\"own\"", "\"unlink\""),
            ("\"gid\":2", "\"gid\":2,\"path\":\"/etc\""),
            ("\"gid\":2", "\"gid\":-2"),
            ("{\"place\"", "{\"root\":\"/\",\"place\""),
            (
                "\"own\":{\"shows\":{\"device\":\"8:1\",\"root\":\"/\"},\"gid\":2}",
                "\"hide\":{\"sub_path\":\"../x\"}",
            ),
        ] {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good);
            assert!(Request::decode(changed.as_bytes()).is_err(), "{changed}");
        }
        let long = format!("{}{}", " ".repeat(MAX_LINE), good);
        assert!(Request::decode(long.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert!(Request::decode(&bytes).is_err());
            assert!(Answer::decode(&bytes).is_err());
        }
    }
}
