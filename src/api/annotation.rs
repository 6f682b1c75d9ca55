// SPDX-License-Identifier: Apache-2.0
//! The annotations of a pod or container that carry a grant.

use std::{collections::BTreeMap, fmt, ops::Bound};

use super::{grant, problem::cut};
use crate::{
    error::{Error, Result},
    model::{ActorRef, Grant},
};

/// Every annotation that begins so is for us.
pub const PREFIX: &str = "actor-volumes.dev/";
/// The actor, as `namespace/name`; the same as in the attachments.
pub const ACTOR: &str = "actor-volumes.dev/actor";
/// The grant as JSON.
pub const ATTACHMENTS: &str = "actor-volumes.dev/attachments";
/// The name in the template of a container that no pod holds, where the grant has mounts
/// for more than one. Not of a pod: its runtime tells the names.
pub const CONTAINER: &str = "actor-volumes.dev/container";
/// The signature of the attachments.
pub const SIGNATURE: &str = "actor-volumes.dev/signature";
/// Tells containerd 2.2 and later to refuse the pod while we are not there.
pub const REQUIRED_PLUGINS: &str = "required-plugins.noderesource.dev/pod";
/// The value of [`REQUIRED_PLUGINS`].
pub const REQUIRED_PLUGINS_VALUE: &str = r#"["actor-volumes"]"#;

/// The longest attachments that are read, or written.
pub const MAX_ATTACHMENTS_BYTES: usize = 64 * 1024;

/// A longer refusal is cut: it may quote what was presented, and it travels
/// through the runtime to whoever starts the container.
const MAX_MESSAGE_CHARS: usize = 1000;

/// What somebody presented: read and well formed, not yet believed.
#[derive(Clone, PartialEq)]
pub struct Presented {
    /// The actor of the annotation; the grant names the same.
    pub actor: ActorRef,
    /// The grant.
    pub grant: Grant,
    /// The attachments byte for byte, for a signature or a comparison.
    pub raw: String,
}

// The raw text holds contexts.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("actor", &self.actor)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

/// What somebody presents, as it stands there: nothing of it is read or believed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    actor: &'a str,
    attachments: &'a str,
    signature: Option<&'a str>,
    container: Option<&'a str>,
}

/// Finds what the annotations present; none if they are not about us.
pub fn find(annotations: &BTreeMap<String, String>) -> Result<Option<Raw<'_>>> {
    // Every container of the node comes by here: one look into the sorted map.
    let mut ours = annotations
        .range::<str, _>((Bound::Included(PREFIX), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(PREFIX))
        .peekable();
    if ours.peek().is_none() {
        return Ok(None);
    }
    found(ours).map(Some).map_err(shortened)
}

/// Finds and reads what the annotations present, whoever has signed it.
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Presented>> {
    find(annotations)?.map(|raw| raw.read()).transpose()
}

fn shortened(error: Error) -> Error {
    Error::new(error.kind(), cut(&error.to_string(), MAX_MESSAGE_CHARS))
}

fn found<'a>(ours: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Raw<'a>> {
    let mut actor = None;
    let mut attachments = None;
    let mut signature = None;
    let mut container = None;
    for (key, value) in ours {
        match key.as_str() {
            ACTOR => actor = Some(value.as_str()),
            ATTACHMENTS => attachments = Some(value.as_str()),
            SIGNATURE => signature = Some(value.as_str()),
            CONTAINER => container = Some(value.as_str()),
            _ => {
                return Err(Error::invalid(format!(
                    "annotation {key:?} is not known: remove it, or upgrade actor-volumes if a later version defines it"
                )));
            }
        }
    }
    let missing = |missing: &str| {
        Error::invalid(format!(
            "annotation {missing} is missing beside others of {PREFIX}: give all the annotations that `actor-volumes actor resume` printed"
        ))
    };
    let raw = Raw {
        actor: actor.ok_or_else(|| missing(ACTOR))?,
        attachments: attachments.ok_or_else(|| missing(ATTACHMENTS))?,
        signature,
        container,
    };
    check_size(raw.attachments)?;
    Ok(raw)
}

impl<'a> Raw<'a> {
    /// The attachments, byte for byte.
    pub fn attachments(&self) -> &'a str {
        self.attachments
    }

    /// The signature, if there is one.
    pub fn signature(&self) -> Option<&'a str> {
        self.signature
    }

    /// The name of the container, where the annotations tell it.
    pub fn container(&self) -> Option<&'a str> {
        self.container
    }

    /// Reads it.
    pub fn read(self) -> Result<Presented> {
        self.presented().map_err(shortened)
    }

    fn presented(self) -> Result<Presented> {
        let actor: ActorRef = self.actor.parse().map_err(|e| at(ACTOR, e))?;
        let grant = grant::parse(self.attachments).map_err(|e| at(ATTACHMENTS, e))?;
        let granted = grant.actor_ref();
        if actor != granted {
            return Err(Error::invalid(format!(
                "annotation {ACTOR} says {actor}, but {ATTACHMENTS} is for actor {granted}: give the annotations of one `actor-volumes actor resume`"
            )));
        }
        Ok(Presented {
            actor,
            grant,
            raw: self.attachments.to_owned(),
        })
    }
}

/// The annotations that present this grant. A grant that [`read`] would refuse
/// is refused here.
pub fn write(grant: &Grant) -> Result<BTreeMap<String, String>> {
    let cannot = |e: Error| {
        e.context(format_args!(
            "cannot write the grant of {}",
            grant.actor_ref()
        ))
    };
    grant::check(grant).map_err(cannot)?;
    let attachments = serde_json::to_string(grant)
        .map_err(|e| cannot(Error::internal("it does not become JSON").with_source(e)))?;
    check_size(&attachments).map_err(cannot)?;
    Ok(BTreeMap::from([
        (ACTOR.to_owned(), grant.actor_ref().to_string()),
        (ATTACHMENTS.to_owned(), attachments),
        (
            REQUIRED_PLUGINS.to_owned(),
            REQUIRED_PLUGINS_VALUE.to_owned(),
        ),
    ]))
}

/// The same, with the signature that `sign` makes over the attachments.
pub fn write_signed(
    grant: &Grant,
    sign: impl FnOnce(&str) -> String,
) -> Result<BTreeMap<String, String>> {
    let mut annotations = write(grant)?;
    let signature = sign(&annotations[ATTACHMENTS]);
    annotations.insert(SIGNATURE.to_owned(), signature);
    Ok(annotations)
}

fn check_size(attachments: &str) -> Result<()> {
    if attachments.len() <= MAX_ATTACHMENTS_BYTES {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "annotation {ATTACHMENTS} has {} bytes: at most {MAX_ATTACHMENTS_BYTES}; use fewer volumes and mounts or shorter paths",
        attachments.len()
    )))
}

fn at(key: &str, error: Error) -> Error {
    error.context(format_args!(
        "annotation {key} is refused (give it as `actor-volumes actor resume` printed it)"
    ))
}

#[cfg(test)]
mod tests;
