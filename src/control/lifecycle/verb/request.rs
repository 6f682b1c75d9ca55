// SPDX-License-Identifier: Apache-2.0
//! Requests that name themselves: what was carried out is not done twice.

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::State;
use crate::{
    control::record::{ActorRecord, Request, RequestId, UnderWay, VerbName},
    error::{Error, Result},
};

/// How many requests an actor remembers.
const REMEMBERED: usize = 16;

/// A verb as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub verb: VerbName,
    /// What its client named it, if anything.
    pub id: Option<RequestId>,
    /// A digest of its arguments.
    pub arguments: String,
    /// When it came.
    pub now: Timestamp,
}

impl Call {
    /// A call that comes now.
    pub fn new(verb: VerbName, id: Option<RequestId>, arguments: &impl Serialize) -> Self {
        // Names and lists of names: they can always be written.
        let digest = Sha256::digest(serde_json::to_vec(arguments).unwrap_or_default());
        Self {
            verb,
            id,
            arguments: hex::encode(&digest[..16]),
            now: Timestamp::now(),
        }
    }
}

/// Does what the verb does, unless this very request did it before. Whether it
/// was done now.
///
/// The same id with another verb or other arguments is refused.
pub fn perform(
    state: &mut State,
    call: &Call,
    verb: impl FnOnce(&mut State) -> Result<()>,
) -> Result<bool> {
    let actor = state.actor.as_ref();
    if let Some(actor) = actor
        && was_done(actor, call)?
    {
        return Ok(false);
    }
    let stand = |a: &ActorRecord| (a.phase, a.deletion, a.last_end);
    let before = actor.map(stand);
    verb(state)?;
    if let Some(actor) = &mut state.actor {
        if before != Some(stand(actor)) {
            actor.by = Some(UnderWay {
                verb: call.verb,
                request: call.id.clone(),
                at: call.now,
            });
        }
        remember(actor, call);
    }
    Ok(true)
}

/// Whether the actor's phase is the doing of that verb since this request came:
/// what it led to is not over.
pub fn is_current(actor: &ActorRecord, call: &Call) -> bool {
    let request = actor
        .requests
        .iter()
        .find(|r| Some(&r.id) == call.id.as_ref());
    match (&actor.by, request) {
        (Some(by), Some(request)) => by.verb == call.verb && request.at >= by.at,
        _ => false,
    }
}

fn was_done(actor: &ActorRecord, call: &Call) -> Result<bool> {
    let Some(id) = &call.id else {
        return Ok(false);
    };
    let Some(there) = actor.requests.iter().find(|r| &r.id == id) else {
        return Ok(false);
    };
    if there.verb != call.verb {
        return Err(Error::invalid(format!(
            "request id {id} was used for {} of actor {}: give {} one of its own",
            there.verb, actor.actor, call.verb
        )));
    }
    if there.arguments != call.arguments {
        return Err(Error::invalid(format!(
            "request id {id} was used for {} of actor {} with other arguments: give another request another id",
            there.verb, actor.actor
        )));
    }
    Ok(true)
}

fn remember(actor: &mut ActorRecord, call: &Call) {
    let Some(id) = &call.id else {
        return;
    };
    actor.requests.push(Request {
        id: id.clone(),
        verb: call.verb,
        arguments: call.arguments.clone(),
        at: call.now,
    });
    let surplus = actor.requests.len().saturating_sub(REMEMBERED);
    actor.requests.drain(..surplus);
}
