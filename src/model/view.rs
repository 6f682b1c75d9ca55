// SPDX-License-Identifier: Apache-2.0
//! What a door (NRI, hook, wrapper) shows of a sandbox and a container.

use std::{collections::BTreeMap, fmt};

/// A pod sandbox as a runtime shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SandboxView {
    /// The sandbox id.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Which of the runtime's handlers runs it; empty: the default one.
    pub handler: String,
}

/// A container as a runtime shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// The container id.
    pub id: String,
    /// The sandbox that it belongs to.
    pub sandbox: String,
    /// Its name in the pod.
    pub name: String,
    /// Its own annotations (the pod's are not among them).
    pub annotations: BTreeMap<String, String>,
    /// The mounts of its OCI spec.
    pub mounts: Vec<ViewMount>,
    /// The user namespace that it runs in, where that is not the host's: a path, empty
    /// for one of its own.
    pub user_namespace: Option<String>,
}

/// A mount of a container's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewMount {
    /// The path inside the container.
    pub destination: String,
    /// The path on the host.
    pub source: String,
}

// Annotations may hold contexts: Debug shows who it is and no more.
impl fmt::Debug for SandboxView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SandboxView({} {}/{})",
            self.id, self.namespace, self.name
        )
    }
}

impl fmt::Debug for ContainerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ContainerView({} {} in {})",
            self.id, self.name, self.sandbox
        )
    }
}
