// SPDX-License-Identifier: Apache-2.0
//! Who asked for what: requests that name themselves, and the verb that an actor
//! is in the hands of.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most characters of an id.
const LONGEST_ID: usize = 64;

/// A verb of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerbName {
    Create,
    Resume,
    Suspend,
    Crash,
    Update,
    Delete,
}

impl fmt::Display for VerbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Crash => "crash",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

/// The name that a client gave to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > LONGEST_ID || !visible {
            return Err(Error::invalid(format!(
                "a request id has 1 to {LONGEST_ID} visible ASCII characters"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request that was carried out, as its actor remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What the client named it.
    pub id: RequestId,
    /// What was asked for.
    pub verb: VerbName,
    /// A digest of how it was asked for.
    pub arguments: String,
    /// When.
    pub at: Timestamp,
}

/// The verb that brought an actor to its phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Which.
    pub verb: VerbName,
    /// What its client named it, if anything.
    pub request: Option<RequestId>,
    /// When it came.
    pub at: Timestamp,
}

impl fmt::Display for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            Some(id) => write!(f, "{} (request {id})", self.verb),
            None => self.verb.fmt(f),
        }
    }
}

/// How an actor stopped to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Its platform suspended it.
    Suspended,
    /// Its platform said that it died.
    Crashed,
}

impl End {
    /// The end, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Crashed => "Crashed",
        }
    }
}

/// The last end of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// How.
    pub how: End,
    /// When the verb came.
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_and_visible() {
        for good in ["a", "0190f1c2-7a4b", &"x".repeat(64)] {
            assert_eq!(good.parse::<RequestId>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?}");
        }
    }
}
