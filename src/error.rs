// SPDX-License-Identifier: Apache-2.0
//! The one error that crosses rooms: a kind, a message, and the error below it.
//!
//! The kind is chosen where the error is born and decides everything that a
//! boundary needs: the gRPC code, the exit status, the log level, and whether
//! the same request may succeed later.

use std::{error::Error as StdError, fmt};

/// What went wrong, in the words of the gRPC status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request can never succeed as it is: fix it.
    InvalidInput,
    /// A named thing does not exist.
    NotFound,
    /// The name exists with another content.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// The state of the system forbids it now; a person or another verb must act first.
    FailedPrecondition,
    /// Another operation on the same thing is under way; retry.
    Aborted,
    /// Something needed is not ready or not reachable; retry.
    Unavailable,
    /// The time given was not enough; what was asked may be done or not.
    DeadlineExceeded,
    /// A limit is reached.
    ResourceExhausted,
    /// This version, or the peer, does not do this.
    Unimplemented,
    /// A promise of our own code, or of the machine below it, is broken.
    Internal,
}

/// Whether the same request may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request can not succeed.
    Never,
    /// It may succeed once something else was changed.
    AfterChange,
    /// Retry with back-off.
    Later,
}

impl Kind {
    /// The gRPC status code (also used by ttrpc), as its number.
    pub const fn code(self) -> i32 {
        match self {
            Self::InvalidInput => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
        }
    }

    /// The kind that a peer's status code stands for.
    pub const fn from_code(code: i32) -> Self {
        match code {
            1 | 4 => Self::DeadlineExceeded,
            3 | 11 => Self::InvalidInput,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 | 16 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            12 => Self::Unimplemented,
            14 => Self::Unavailable,
            _ => Self::Internal,
        }
    }

    /// The exit status of a command that ends with this error.
    ///
    /// 1 is left to errors without a kind, 2 to the command line itself.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::InvalidInput => 3,
            Self::NotFound => 4,
            Self::AlreadyExists | Self::FailedPrecondition => 5,
            Self::PermissionDenied => 6,
            Self::Aborted
            | Self::Unavailable
            | Self::DeadlineExceeded
            | Self::ResourceExhausted => 7,
            Self::Unimplemented => 8,
            Self::Internal => 9,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn retry(self) -> Retry {
        match self {
            Self::InvalidInput | Self::Unimplemented | Self::AlreadyExists => Retry::Never,
            Self::NotFound | Self::PermissionDenied | Self::FailedPrecondition => {
                Retry::AfterChange
            }
            Self::Aborted
            | Self::Unavailable
            | Self::DeadlineExceeded
            | Self::ResourceExhausted
            | Self::Internal => Retry::Later,
        }
    }

    /// Whether an operator should look: our own fault or a limit, not the caller's.
    pub const fn is_alarming(self) -> bool {
        matches!(self, Self::Internal | Self::ResourceExhausted)
    }

    /// The kind in the spelling of the gRPC code, for people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
        }
    }
}

type Source = Box<dyn StdError + Send + Sync>;

/// An error with a [`Kind`]. The message says what was attempted, on what, and
/// what to do; it never holds a secret.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    source: Option<Source>,
}

/// The result of a fallible step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind with this message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// The same error with the one that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same kind and cause, with what was attempted put before the message.
    #[must_use]
    pub fn context(mut self, attempted: impl fmt::Display) -> Self {
        self.0.message = format!("{attempted}: {}", self.0.message);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message with all causes, on one line.
    pub fn full_message(&self) -> String {
        let mut text = self.0.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Kind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// See [`Kind::InvalidInput`].
    invalid => InvalidInput,
    /// See [`Kind::NotFound`].
    not_found => NotFound,
    /// See [`Kind::AlreadyExists`].
    already_exists => AlreadyExists,
    /// See [`Kind::PermissionDenied`].
    denied => PermissionDenied,
    /// See [`Kind::FailedPrecondition`].
    precondition => FailedPrecondition,
    /// See [`Kind::Aborted`].
    aborted => Aborted,
    /// See [`Kind::Unavailable`].
    unavailable => Unavailable,
    /// See [`Kind::DeadlineExceeded`].
    deadline => DeadlineExceeded,
    /// See [`Kind::ResourceExhausted`].
    exhausted => ResourceExhausted,
    /// See [`Kind::Unimplemented`].
    unimplemented => Unimplemented,
    /// See [`Kind::Internal`].
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.as_str(), self.full_message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_every_kind_reads_back_as_that_kind() {
        use Kind::*;
        for kind in [
            InvalidInput,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            FailedPrecondition,
            Aborted,
            Unavailable,
            DeadlineExceeded,
            ResourceExhausted,
            Unimplemented,
            Internal,
        ] {
            assert_eq!(Kind::from_code(kind.code()), kind);
            assert!(kind.exit_status() > 2);
        }
    }

    #[test]
    fn the_full_message_names_the_cause_once() {
        let cause = std::io::Error::other("no space left");
        let error = Error::internal("cannot write record a.json").with_source(cause);
        assert_eq!(
            error.context("publishing").full_message(),
            "publishing: cannot write record a.json: no space left"
        );
    }
}
