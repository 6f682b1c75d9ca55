// SPDX-License-Identifier: Apache-2.0
//! What a failed call means.

use std::{error::Error as _, fmt};

use tonic::{Code, Status, TimeoutExpired};

use crate::{
    error::{Error, Kind},
    secret::blotted,
};

/// Whether a failed call is known not to have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The driver answered no: nothing is under way.
    Final,
    /// It may be done, under way or not done: repeat the same request, or negate it.
    Ambiguous,
}

/// A CSI call that failed.
#[derive(Debug)]
pub struct CallError {
    /// The RPC, as CSI spells it.
    pub rpc: &'static str,
    /// Whether it may have been carried out.
    pub outcome: Outcome,
    /// What went wrong, with the driver's message.
    pub error: Error,
}

impl CallError {
    pub(super) fn ambiguous(rpc: &'static str, error: Error) -> Self {
        Self {
            rpc,
            outcome: Outcome::Ambiguous,
            error,
        }
    }

    pub(super) fn last(rpc: &'static str, error: Error) -> Self {
        Self {
            rpc,
            outcome: Outcome::Final,
            error,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rpc, self.error.full_message())
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Error {
    fn from(call: CallError) -> Self {
        call.error.context(call.rpc)
    }
}

/// Which place of a driver serves an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Controller,
    Node,
}

/// One RPC, and the part of its class that differs between RPCs.
#[derive(Clone, Copy)]
pub(super) struct Rpc {
    pub(super) name: &'static str,
    pub(super) side: Side,
    /// What RESOURCE_EXHAUSTED says: "no room" ends a CreateVolume, but to a
    /// node or attach call it may as well say "too busy, ask again".
    exhausted: Outcome,
}

impl Rpc {
    /// Identity calls, CreateVolume, DeleteVolume and ListVolumes.
    pub(super) const fn plain(name: &'static str) -> Self {
        Self {
            name,
            side: Side::Controller,
            exhausted: Outcome::Final,
        }
    }

    /// Calls of the Controller service that attach or grow.
    pub(super) const fn attaching(name: &'static str) -> Self {
        Self {
            name,
            side: Side::Controller,
            exhausted: Outcome::Ambiguous,
        }
    }

    /// Calls of the Node service.
    pub(super) const fn node(name: &'static str) -> Self {
        Self {
            name,
            side: Side::Node,
            exhausted: Outcome::Ambiguous,
        }
    }
}

/// Whether the status was made on our side because the connection failed, and
/// is no answer of the driver.
pub(super) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// Whether our own deadline ended the call.
pub(super) fn is_timeout(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The class of a status, and what to tell people.
pub(super) fn classify(rpc: Rpc, driver: &str, status: &Status) -> CallError {
    let message = sanitise(status.message());
    if is_transport(status) {
        let error = Error::unavailable(format!(
            "lost the connection to CSI driver {driver} during the call, which may have been carried out: {message}"
        ));
        return CallError::ambiguous(rpc.name, error);
    }
    let outcome = match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => {
            Outcome::Ambiguous
        }
        Code::ResourceExhausted => rpc.exhausted,
        _ => Outcome::Final,
    };
    let code = code_name(status.code());
    CallError {
        rpc: rpc.name,
        outcome,
        error: Error::new(
            Kind::from_code(status.code().into()),
            format!("CSI driver {driver} answered {code}: {message}"),
        ),
    }
}

/// The longest message of a driver that is kept.
const MAX_MESSAGE: usize = 1024;

/// The driver's text, fit for logs and people: no secret that was told to it, no
/// control characters, at most 1 KiB.
pub(super) fn sanitise(message: &str) -> String {
    let mut text = String::new();
    for c in blotted(message).trim().chars() {
        if text.len() + c.len_utf8() > MAX_MESSAGE - "…".len() {
            text.push('…');
            break;
        }
        text.push(if c.is_control() { ' ' } else { c });
    }
    if text.is_empty() {
        text.push_str("(no message)");
    }
    text
}

/// The code of what came back, for those who count; none came: DEADLINE_EXCEEDED.
pub(super) fn code_of<T>(answer: Option<&Result<T, Status>>) -> &'static str {
    match answer {
        Some(Ok(_)) => code_name(Code::Ok),
        Some(Err(status)) if is_timeout(status) => code_name(Code::DeadlineExceeded),
        Some(Err(status)) if is_transport(status) => code_name(Code::Unavailable),
        Some(Err(status)) => code_name(status.code()),
        None => code_name(Code::DeadlineExceeded),
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: Rpc = Rpc::plain("CreateVolume");
    const PUBLISH: Rpc = Rpc::node("NodePublishVolume");

    fn outcome(rpc: Rpc, code: Code) -> Outcome {
        classify(rpc, "d", &Status::new(code, "m")).outcome
    }

    #[test]
    fn only_answers_that_leave_the_effect_open_are_ambiguous() {
        let ambiguous = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::Aborted,
        ];
        for code in (1..=16).map(Code::from) {
            let expected = if ambiguous.contains(&code) {
                Outcome::Ambiguous
            } else {
                Outcome::Final
            };
            assert_eq!(outcome(CREATE, code), expected, "{code:?}");
        }
        assert_eq!(
            outcome(PUBLISH, Code::ResourceExhausted),
            Outcome::Ambiguous
        );
    }

    #[test]
    fn a_failure_of_the_connection_is_ambiguous_whatever_its_code() {
        let status = Status::from_error("broken pipe".into());
        assert_eq!(status.code(), Code::Unknown);
        let call = classify(CREATE, "d", &status);
        assert_eq!(call.outcome, Outcome::Ambiguous);
        assert_eq!(call.error.kind(), Kind::Unavailable);
    }

    /// A driver that says back what it was told.
    #[test]
    fn a_secret_of_the_call_does_not_come_out_by_its_error() {
        use crate::secret::Secrets;

        let value = "said-back-by-the-driver";
        let secrets: Secrets = [("key".to_owned(), value.to_owned())].into_iter().collect();
        // Also where the text is cut in the middle of it.
        for before in [0, MAX_MESSAGE - 10] {
            let text = format!("{}{value} is wrong", "x".repeat(before));
            let error = classify(PUBLISH, "d", &Status::invalid_argument(text)).error;
            assert!(!error.full_message().contains("said"), "{error:?}");
        }
        drop(secrets);
    }

    #[test]
    fn a_message_loses_control_characters_and_its_tail() {
        assert_eq!(sanitise("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(sanitise(""), "(no message)");
        let long = sanitise(&"ä".repeat(2000));
        assert!(long.len() <= MAX_MESSAGE && long.ends_with('…'));
        assert_eq!(sanitise("short"), "short");
    }
}
