// SPDX-License-Identifier: Apache-2.0
//! What both ends of the line between a node and its control plane agree on.

use crate::{
    error::{Error, Kind, Result},
    model::VolumeKey,
    proto::api,
    transport,
};

/// The version of the protocol: both ends must speak the same.
pub const PROTOCOL: u32 = 1;

/// The largest message: a node may hold many volumes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Messages that wait to be sent; when there are more, the line is cut, and the
/// next one begins with the whole picture.
pub const QUEUE: usize = 1024;

/// The volume that a message names.
pub fn volume_key(driver: &str, volume_id: &str) -> Result<VolumeKey> {
    Ok(VolumeKey {
        driver: driver
            .parse()
            .map_err(|e: Error| e.context("the driver of a volume"))?,
        volume_id: volume_id.to_owned(),
    })
}

/// The names in the certificate of whoever calls; none without one.
pub fn peer_names<T>(request: &tonic::Request<T>) -> Vec<String> {
    let certificates = request.peer_certs();
    let own = certificates.as_ref().and_then(|all| all.first());
    own.map(|c| transport::names_of(c)).unwrap_or_default()
}

/// An answer that is an error.
pub fn refusal(id: u64, error: &Error) -> api::Answer {
    api::Answer {
        id,
        code: error.kind().code(),
        message: error.full_message(),
        ..api::Answer::default()
    }
}

/// What an answer says.
pub fn outcome(answer: api::Answer) -> Result<api::Answer> {
    if answer.code == 0 {
        Ok(answer)
    } else {
        Err(Error::new(Kind::from_code(answer.code), answer.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_line_with_its_kind_and_message() {
        let error = Error::precondition("volume v is held by pod p");
        let back = outcome(refusal(7, &error)).err().unwrap();
        assert_eq!(back.kind(), Kind::FailedPrecondition);
        assert_eq!(back.full_message(), error.full_message());
        assert_eq!(outcome(api::Answer::default()).ok().unwrap().id, 0);
    }
}
