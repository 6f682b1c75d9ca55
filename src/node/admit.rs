// SPDX-License-Identifier: Apache-2.0
//! Whether what a pod or container presents is believed, and which scope it is.

use std::collections::BTreeMap;

use super::{
    settings::{Authority, NodeSettings},
    volume::Want,
};
use crate::{
    api::{
        annotation::{self, Raw},
        grant,
    },
    error::{Error, Result},
    keys::KeySet,
    model::{ContainerView, Grant, GrantVolume, RuntimeId, SandboxView, Scope, VolumeMode},
};

/// A grant that is believed, and the scope in which it is used.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) grant: Grant,
    pub(super) scope: Scope,
}

impl Admitted {
    /// What is wanted of one of its volumes, before it is known for whom.
    pub(super) fn want<'a>(&'a self, volume: &'a GrantVolume) -> Want<'a> {
        let mounts = self.grant.mounts.iter();
        let mut mounts = mounts.filter(|m| m.volume == volume.name);
        let sub_paths = mounts.clone().filter_map(|m| m.sub_path.clone()).collect();
        Want {
            volume,
            scope: &self.scope,
            actor: self.grant.actor_ref(),
            actor_uid: self.grant.actor.uid.clone(),
            pod: String::new(),
            read_only: volume.access_mode.is_read_only()
                || (volume.volume_mode == VolumeMode::Filesystem && mounts.all(|m| m.read_only)),
            sub_paths,
            member: None,
            anchor: None,
        }
    }
}

/// Whether the sandbox or the container asks for volumes. Nothing but a look
/// into two sorted maps: this is all that a pod which is not ours costs.
pub(super) fn asks(sandbox: &SandboxView, container: Option<&ContainerView>) -> bool {
    has_ours(&sandbox.annotations) || container.is_some_and(|c| has_ours(&c.annotations))
}

/// Whether an annotation with this key is one of ours.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(annotation::PREFIX)
}

/// Whether annotations of ours are among them.
pub(super) fn has_ours(annotations: &BTreeMap<String, String>) -> bool {
    let mut from = annotations.range(annotation::PREFIX.to_owned()..);
    from.next().is_some_and(|(key, _)| is_ours(key))
}

/// What the two present together; whether it is for the whole sandbox.
fn presented<'a>(
    sandbox: &'a SandboxView,
    container: Option<&'a ContainerView>,
) -> Result<Option<(Raw<'a>, bool)>> {
    let of_pod = annotation::find(&sandbox.annotations)?;
    let of_container = match container {
        Some(container) => annotation::find(&container.annotations)?,
        None => None,
    };
    match (of_pod, of_container) {
        (None, None) => Ok(None),
        // A runtime that passes the pod's on shows them on each container too.
        (Some(raw), Some(passed_on)) if raw == passed_on => Ok(Some((raw, true))),
        (Some(_), Some(_)) => Err(Error::invalid(
            "both the pod and the container carry actor-volumes.dev annotations: put them on one of the two",
        )),
        (Some(raw), None) => Ok(Some((raw, true))),
        (None, Some(raw)) => Ok(Some((raw, false))),
    }
}

/// Whether what is presented is signed with a key that is not in the set.
pub(super) fn lacks_key(
    keys: &KeySet,
    sandbox: &SandboxView,
    container: Option<&ContainerView>,
) -> bool {
    let raw = presented(sandbox, container).ok().flatten();
    let signature = raw.and_then(|(raw, _)| raw.signature());
    signature.is_some_and(|signature| keys.lacks_the_key_of(signature))
}

/// Who has signed it comes first: nothing else of it is read before. A signature that
/// is there always counts, also where none is needed. Whether there is one.
fn check_signature(
    settings: &NodeSettings,
    keys: &KeySet,
    raw: Raw<'_>,
    namespace: &str,
) -> Result<bool> {
    if let Some(signature) = raw.signature() {
        return match keys.verify(raw.attachments(), signature) {
            Ok(()) => Ok(true),
            Err(e) => Err(e.context("the signature of the grant is refused")),
        };
    }
    if settings
        .trusted_namespaces
        .iter()
        .any(|t| t.as_str() == namespace)
    {
        return Ok(false);
    }
    Err(Error::denied(format!(
        "unsigned actor-volumes.dev annotations are not accepted from namespace {namespace:?}: give all annotations that `actor-volumes actor resume` printed, {} among them; or name the namespace in node.trusted_namespaces of this node's configuration if every pod author there may use any actor's volumes",
        annotation::SIGNATURE
    )))
}

/// Reads and checks the annotations. None: neither asks for volumes.
pub(super) fn admit(
    settings: &NodeSettings,
    keys: &KeySet,
    authority: &dyn Authority,
    runtime: &RuntimeId,
    sandbox: &SandboxView,
    container: Option<&ContainerView>,
) -> Result<Option<Admitted>> {
    let Some((raw, whole_sandbox)) = presented(sandbox, container)? else {
        return Ok(None);
    };
    let signed = check_signature(settings, keys, raw, &sandbox.namespace)?;
    if raw.container().is_some() {
        return Err(Error::invalid(format!(
            "annotation {} is for containers that no pod holds: the runtime tells the names of a pod's",
            annotation::CONTAINER
        )));
    }
    let presented = raw.read()?.grant;
    grant::check_presented(&presented, &settings.name, sandbox)?;
    let grant = if signed {
        authority.current_signed(&presented)?
    } else {
        authority.current(&presented)?
    };
    let scope = if whole_sandbox {
        Scope::Sandbox {
            runtime: runtime.clone(),
            sandbox: sandbox.id.clone(),
        }
    } else {
        member_scope(runtime, &sandbox.id, &grant)
    };
    Ok(Some(Admitted { grant, scope }))
}

/// The same of a container that no pod holds. Nobody vouches for its namespace, so that
/// no grant counts without a signature.
pub(super) fn admit_on_host(
    settings: &NodeSettings,
    keys: &KeySet,
    authority: &dyn Authority,
    id: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Grant> {
    let raw = annotation::find(annotations)?
        .ok_or_else(|| Error::invalid("the container has no actor-volumes.dev annotations"))?;
    let signature = raw.signature().ok_or_else(|| {
        Error::denied(format!(
            "unsigned actor-volumes.dev annotations are not accepted of a container that no pod holds: give all annotations that `actor-volumes actor resume --host` printed, {} among them",
            annotation::SIGNATURE
        ))
    })?;
    keys.verify(raw.attachments(), signature)
        .map_err(|e| e.context("the signature of the grant is refused"))?;
    let presented = raw.read()?.grant;
    grant::check_presented_by_host(&presented, &settings.name, id)?;
    authority.current_signed(&presented)
}

/// The scope of a grant that a container carries itself.
pub(super) fn member_scope(runtime: &RuntimeId, sandbox: &str, grant: &Grant) -> Scope {
    Scope::Member {
        runtime: runtime.clone(),
        sandbox: sandbox.to_owned(),
        actor: grant.actor.uid.clone(),
        generation: grant.generation(),
    }
}
