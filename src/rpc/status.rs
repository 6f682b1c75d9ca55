// SPDX-License-Identifier: Apache-2.0
//! Errors as gRPC statuses and back: the kind as the code, the whole message.

use tonic::{Code, Status};

use crate::error::{Error, Kind};

/// A message travels in a header, with most bytes beyond letters and digits
/// tripled; peers take 16 KiB of headers.
const MAX_ENCODED: usize = 12 * 1024;

/// The status of an error.
pub fn status_of(error: &Error) -> Status {
    let code = Code::from_i32(error.kind().code());
    Status::new(code, shortened(error.full_message()))
}

/// The error of a status.
pub fn error_of(status: &Status) -> Error {
    let kind = Kind::from_code(status.code().into());
    // What the transport makes up on its own account names no cause: the
    // source does.
    let error = Error::new(kind, message_of(status));
    match std::error::Error::source(status) {
        Some(source) => error.with_source(source.to_string()),
        None => error,
    }
}

/// A server that does not know the call says nothing at all.
fn message_of(status: &Status) -> String {
    match (status.message(), status.code()) {
        ("", Code::Unimplemented) => {
            "the server does not know this call: is it another daemon, or of another version?"
                .into()
        }
        ("", code) => format!("the server gave no reason: {}", code.description()),
        (message, _) => message.to_owned(),
    }
}

fn shortened(message: String) -> String {
    let mut encoded = 0;
    for (at, c) in message.char_indices() {
        encoded += if c.is_ascii_alphanumeric() {
            1
        } else {
            3 * c.len_utf8()
        };
        if encoded > MAX_ENCODED {
            let rest = message.len() - at;
            return format!("{} … ({rest} more bytes)", &message[..at]);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_from_its_status() {
        let cause = std::io::Error::other("no space left");
        let error = Error::exhausted("cannot make volume vol1\nof ä").with_source(cause);
        let back = error_of(&status_of(&error));
        assert_eq!(back.kind(), error.kind());
        assert_eq!(back.full_message(), error.full_message());
    }

    #[test]
    fn an_answer_without_a_word_is_explained() {
        let said = |code| error_of(&Status::new(code, "")).full_message();
        assert!(said(Code::Unimplemented).contains("does not know this call"));
        assert!(said(Code::Unknown).contains("Unknown error"));
    }

    #[test]
    fn a_message_too_long_for_a_header_says_what_is_missing() {
        let status = status_of(&Error::invalid("ä".repeat(5000)));
        assert!(status.message().len() < MAX_ENCODED);
        assert!(status.message().ends_with("more bytes)"));
        assert_eq!(shortened("x".repeat(9000)).len(), 9000);
    }
}
