// SPDX-License-Identifier: Apache-2.0
//! What the node agent is to be asked about a container that is to be made. Pure.

use std::collections::BTreeMap;

use super::{ContainerSpec, spec::CONTAINER_NAME};
use crate::{
    api::annotation,
    delivery::{self, Spec},
    error::{Error, Result},
};

/// containerd's CRI annotates every container so.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";

/// A container that needs volumes.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// The sandbox id.
    pub sandbox: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// Our annotations, of the pod or of the container.
    pub annotations: BTreeMap<String, String>,
    /// Its mounts and devices.
    pub spec: Spec,
}

/// What is to be asked about the container with this id. None: nothing, it needs
/// no volume of ours. An error: it must not be made, whatever the answer.
pub fn question(id: &str, container: ContainerSpec) -> Result<Option<Question>> {
    let all = container.annotations;
    let ours: BTreeMap<String, String> = all
        .iter()
        .filter(|(key, _)| key.starts_with(annotation::PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if ours.is_empty() {
        return Ok(None);
    }
    let is = |key: &str, value: &str| all.get(key).is_some_and(|found| found == value);
    // The pause container: it runs nothing of the actor's.
    if is(CONTAINER_TYPE, "sandbox") && is(SANDBOX_ID, id) {
        return Ok(None);
    }
    let of = |key: &str| {
        all.get(key).cloned().ok_or_else(|| {
            Error::invalid(format!(
                "the container has actor-volumes.dev annotations and no {key}: only containers of pods, made by containerd's CRI, have volumes"
            ))
        })
    };
    let name = of(CONTAINER_NAME)?;
    // Both are Some: there are annotations of ours.
    let Some(presented) = annotation::read(&ours)? else {
        return Ok(None);
    };
    if delivery::volumes_for(&presented.grant, &name).is_empty() {
        return Ok(None);
    }
    delivery::check_present(&presented.grant, &name, &container.spec)?;
    Ok(Some(Question {
        sandbox: of(SANDBOX_ID)?,
        pod: of(SANDBOX_NAME)?,
        namespace: of(SANDBOX_NAMESPACE)?,
        id: id.to_owned(),
        name,
        annotations: ours,
        spec: container.spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::SpecMount;

    const ATTACHMENTS: &str = r#"{"version":1,"actor":{"namespace":"agents","name":"a","uid":"u1"},"node":"n","audience":{"kind":"pod","namespace":"agents"},"volumes":[{"name":"vol1","uid":"v1","generation":1,"driver":"d.test","volumeId":"x","volumeMode":"Filesystem","accessMode":"SINGLE_NODE_SINGLE_WRITER"}],"mounts":[{"container":"agent","volume":"vol1","mountPath":"/my-data"}]}"#;

    /// The container `name` of a pod whose grant is for the container `agent`.
    fn container(name: &str, mounts: &[&str]) -> ContainerSpec {
        let annotations = [
            (annotation::ACTOR, "agents/a"),
            (annotation::ATTACHMENTS, ATTACHMENTS),
            (CONTAINER_TYPE, "container"),
            (CONTAINER_NAME, name),
            (SANDBOX_ID, "s1"),
            (SANDBOX_NAME, "pod"),
            (SANDBOX_NAMESPACE, "agents"),
        ];
        let mount = |destination: &&str| SpecMount {
            destination: (*destination).into(),
            ..SpecMount::default()
        };
        ContainerSpec {
            annotations: annotations.map(|(k, v)| (k.into(), v.into())).into(),
            spec: Spec {
                mounts: mounts.iter().map(mount).collect(),
                devices: Vec::new(),
            },
        }
    }

    #[test]
    fn a_container_with_a_mount_at_the_place_is_asked_about() {
        let asked = question("c1", container("agent", &["/proc", "/my-data"]));
        let asked = asked.unwrap().unwrap();
        assert_eq!((asked.sandbox.as_str(), asked.id.as_str()), ("s1", "c1"));
        assert_eq!(asked.annotations.len(), 2, "ours alone");
    }

    #[test]
    fn one_without_a_mount_at_the_place_is_refused_without_asking() {
        let refused = question("c1", container("agent", &["/proc"]))
            .err()
            .unwrap();
        assert!(refused.to_string().contains("was not given"), "{refused}");
    }

    #[test]
    fn who_needs_no_volume_passes() {
        let foreign = ContainerSpec::default();
        assert!(question("c1", foreign).unwrap().is_none());
        assert!(question("c1", container("sidecar", &[])).unwrap().is_none());
        let mut pause = container("agent", &[]);
        let kind = pause.annotations.get_mut(CONTAINER_TYPE).unwrap();
        *kind = "sandbox".into();
        assert!(question("s1", pause.clone()).unwrap().is_none());
        // Only the sandbox itself is one.
        assert!(question("c1", pause).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (key, value) in [
            (annotation::ATTACHMENTS, "{"),
            (annotation::ACTOR, "agents/b"),
            ("actor-volumes.dev/other", "x"),
        ] {
            let mut broken = container("agent", &["/my-data"]);
            broken.annotations.insert(key.into(), value.into());
            assert!(question("c1", broken).is_err(), "{key}");
        }
        let mut nameless = container("agent", &["/my-data"]);
        nameless.annotations.remove(CONTAINER_NAME);
        assert!(question("c1", nameless).is_err());
    }
}
