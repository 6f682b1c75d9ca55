// SPDX-License-Identifier: Apache-2.0
//! Whether what a pod or container presents is believed, and which scope it is.

use std::collections::BTreeMap;

use super::settings::{Authority, NodeSettings};
use crate::{
    api::{annotation, grant},
    error::{Error, Result},
    model::{ContainerView, Grant, RuntimeId, SandboxView, Scope},
};

/// A grant that is believed, and the scope in which it is used.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) grant: Grant,
    pub(super) scope: Scope,
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

/// Reads and checks the annotations. None: neither asks for volumes.
pub(super) fn admit(
    settings: &NodeSettings,
    authority: &dyn Authority,
    runtime: &RuntimeId,
    sandbox: &SandboxView,
    container: Option<&ContainerView>,
) -> Result<Option<Admitted>> {
    let of_pod = annotation::read(&sandbox.annotations)?;
    let of_container = match container {
        Some(container) => annotation::read(&container.annotations)?,
        None => None,
    };
    let (presented, whole_sandbox) = match (of_pod, of_container) {
        (None, None) => return Ok(None),
        // A runtime that passes the pod's on shows them on each container too.
        (Some(presented), Some(passed_on)) if presented == passed_on => (presented, true),
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "both the pod and the container carry actor-volumes.dev annotations: put them on one of the two",
            ));
        }
        (Some(presented), None) => (presented, true),
        (None, Some(presented)) => (presented, false),
    };
    let trusted = |ns: &str| settings.trusted_namespaces.iter().any(|t| t.as_str() == ns);
    if !trusted(&sandbox.namespace) {
        return Err(Error::denied(format!(
            "unsigned actor-volumes.dev annotations are not accepted from namespace {:?}: name it in node.trusted_namespaces of this node's configuration if every pod author there may use any actor's volumes",
            sandbox.namespace
        )));
    }
    grant::check_presented(&presented.grant, &settings.name, sandbox)?;
    let grant = authority.current(&presented.grant)?;
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

/// The scope of a grant that a container carries itself.
pub(super) fn member_scope(runtime: &RuntimeId, sandbox: &str, grant: &Grant) -> Scope {
    Scope::Member {
        runtime: runtime.clone(),
        sandbox: sandbox.to_owned(),
        actor: grant.actor.uid.clone(),
        generation: grant.generation(),
    }
}
