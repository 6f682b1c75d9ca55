// SPDX-License-Identifier: Apache-2.0
//! Fields of requests as what they stand for.

use jiff::Timestamp;
use std::{collections::HashMap, time::Duration};

use crate::{
    control::{Adopted, DEFAULT_WAIT, VolumeFilter},
    error::{Error, Result},
    model::{ActorRef, DnsLabel, VolumeUid},
    proto::api,
};

/// The longest that one call may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The page size where a request names none.
const PAGE: usize = 500;

/// The largest.
const LARGEST_PAGE: usize = 1000;

pub(super) fn within(timeout_ms: u32) -> Duration {
    match timeout_ms {
        0 => DEFAULT_WAIT,
        ms => Duration::from_millis(ms.into()).min(LONGEST_WAIT),
    }
}

pub(super) fn limit(page_size: i32) -> usize {
    match usize::try_from(page_size) {
        Ok(0) | Err(_) => PAGE,
        Ok(size) => size.min(LARGEST_PAGE),
    }
}

/// Where a page goes on, as its token says.
pub(super) fn after(token: &str) -> Result<Option<String>> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = hex::decode(token).ok();
    let key = bytes.and_then(|b| String::from_utf8(b).ok());
    key.map(Some).ok_or_else(|| {
        Error::invalid("page_token was not given out by a listing: begin without one")
    })
}

/// The token of where the next page goes on; empty: there is none.
pub(super) fn token(next: Option<String>) -> String {
    next.map_or_else(String::new, hex::encode)
}

/// Which volumes are asked for.
pub(super) fn volume_filter(request: api::ListVolumesRequest) -> Result<VolumeFilter> {
    let actor = some(request.actor);
    let node = parsed("node", request.node)?;
    match (request.retained, actor, node) {
        (false, None, None) => Ok(VolumeFilter::All),
        (true, None, None) => Ok(VolumeFilter::Retained),
        (false, Some(actor), None) => {
            let actor = actor.parse().map_err(|e: Error| e.context("actor"))?;
            Ok(VolumeFilter::OfActor(actor))
        }
        (false, None, Some(node)) => Ok(VolumeFilter::OnNode(node)),
        _ => Err(Error::invalid(
            "retained, actor and node do not go together: give one of them",
        )),
    }
}

pub(super) fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// An optional name: empty is none.
pub(super) fn parsed<T: std::str::FromStr<Err = Error>>(
    field: &str,
    text: String,
) -> Result<Option<T>> {
    let parsed = some(text).map(|t| t.parse().map_err(|e: Error| e.context(field)));
    parsed.transpose()
}

/// A time as RFC 3339 writes it; empty: none.
pub(super) fn time(field: &str, text: String) -> Result<Option<Timestamp>> {
    let read = |text: String| {
        text.parse().map_err(|_| {
            Error::invalid(format!(
                "{field} must be a time as RFC 3339 writes it, such as 2030-01-31T12:00:00Z"
            ))
        })
    };
    some(text).map(read).transpose()
}

/// Volumes by the names that they are to have.
pub(super) fn adopted(field: &str, volumes: HashMap<String, String>) -> Result<Adopted> {
    let volumes = volumes.into_iter().map(|(name, uid)| {
        let name = name.parse::<DnsLabel>()?;
        Ok((name, uid.parse::<VolumeUid>()?))
    });
    let volumes: Result<_> = volumes.collect();
    volumes.map_err(|e| e.context(field))
}

pub(super) fn actor_ref(namespace: &str, name: &str) -> Result<ActorRef> {
    Ok(ActorRef {
        namespace: namespace
            .parse()
            .map_err(|e: Error| e.context("namespace"))?,
        name: name.parse().map_err(|e: Error| e.context("name"))?,
    })
}
