// SPDX-License-Identifier: Apache-2.0
//! What the node agent is to be asked about a container that is to be made. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{ContainerSpec, crio, spec::CONTAINER_NAME};
use crate::{
    api::annotation,
    delivery::{self, Spec},
    error::{Error, Result},
    model::Grant,
};

/// containerd's CRI annotates every container so.
pub(super) const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
pub(super) const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
pub(super) const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
pub(super) const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";

/// A container that needs volumes.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// The pod that holds it; none: no pod does.
    pub pod: Option<Pod>,
    /// The container's id.
    pub id: String,
    /// The container's name in the pod, or in the template.
    pub name: String,
    /// Why the spec has nothing at a place of the grant; none: it has something at
    /// every one.
    pub missing: Option<String>,
    /// Our annotations, of the pod or of the container.
    pub annotations: BTreeMap<String, String>,
    /// Its mounts and devices.
    pub spec: Spec,
}

/// A pod of a CRI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The sandbox id.
    pub sandbox: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
}

/// What is to be asked about the container with this id. None: nothing, it needs
/// no volume of ours. An error: it must not be made, whatever the answer.
pub fn question(id: &str, container: ContainerSpec) -> Result<Option<Question>> {
    let mut all = container.annotations;
    crio::translate(&mut all);
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
    let pod = pod(&all)?;
    // Both are Some: there are annotations of ours.
    let (Some(raw), Some(presented)) = (annotation::find(&ours)?, annotation::read(&ours)?) else {
        return Ok(None);
    };
    let name = match (all.get(CONTAINER_NAME), &pod) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => return Err(untold(CONTAINER_NAME)),
        (None, None) => name_in_template(&presented.grant, raw.container())?,
    };
    if delivery::volumes_for(&presented.grant, &name).is_empty() {
        return Ok(None);
    }
    let missing = delivery::check_present(&presented.grant, &name, &container.spec).err();
    Ok(Some(Question {
        pod,
        id: id.to_owned(),
        name,
        missing: missing.map(|e| e.full_message()),
        annotations: ours,
        spec: container.spec,
    }))
}

fn pod(all: &BTreeMap<String, String>) -> Result<Option<Pod>> {
    let of = |key: &str| all.get(key).cloned().ok_or_else(|| untold(key));
    if !all.contains_key(SANDBOX_ID) && !all.contains_key(CONTAINER_TYPE) {
        return Ok(None);
    }
    Ok(Some(Pod {
        sandbox: of(SANDBOX_ID)?,
        name: of(SANDBOX_NAME)?,
        namespace: of(SANDBOX_NAMESPACE)?,
    }))
}

fn untold(key: &str) -> Error {
    Error::invalid(format!(
        "the container is of a pod and has no annotation {key}: use a runtime that gives it, as containerd's CRI does"
    ))
}

/// Which container of the template it is: what the annotation says, or the only one
/// that the grant names.
fn name_in_template(grant: &Grant, told: Option<&str>) -> Result<String> {
    if let Some(told) = told {
        return Ok(told.to_owned());
    }
    let of_mounts = grant.mounts.iter().filter_map(|m| m.container.as_ref());
    let of_devices = grant.devices.iter().filter_map(|d| d.container.as_ref());
    let names: BTreeSet<&str> = of_mounts.chain(of_devices).map(|n| n.as_str()).collect();
    let mut each = names.iter();
    match (each.next(), each.next()) {
        (None, _) => Ok(String::new()),
        (Some(only), None) => Ok((*only).to_owned()),
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "the grant has volumes for the containers {}, and it is not told which of them this is: say it by the annotation {}",
            names.into_iter().collect::<Vec<_>>().join(", "),
            annotation::CONTAINER
        ))),
    }
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
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn a_container_with_a_mount_at_the_place_is_asked_about() {
        let asked = question("c1", container("agent", &["/proc", "/my-data"]));
        let asked = asked.unwrap().unwrap();
        let pod = asked.pod.unwrap();
        assert_eq!((pod.sandbox.as_str(), asked.id.as_str()), ("s1", "c1"));
        assert_eq!(asked.missing, None);
        assert_eq!(asked.annotations.len(), 2, "ours alone");
    }

    #[test]
    fn one_without_a_mount_at_the_place_is_told_so() {
        let asked = question("c1", container("agent", &["/proc"])).unwrap();
        let missing = asked.unwrap().missing.unwrap();
        assert!(missing.contains("was not given"), "{missing}");
    }

    #[test]
    fn a_container_that_no_pod_holds_is_the_only_one_of_the_template_or_says_which() {
        let bare = |attachments: &str, told: Option<&str>| {
            let mut bare = container("agent", &[]);
            for key in [
                CONTAINER_TYPE,
                CONTAINER_NAME,
                SANDBOX_ID,
                SANDBOX_NAME,
                SANDBOX_NAMESPACE,
            ] {
                bare.annotations.remove(key);
            }
            let ours = &mut bare.annotations;
            ours.insert(annotation::ATTACHMENTS.into(), attachments.into());
            ours.extend(told.map(|t| (annotation::CONTAINER.to_owned(), t.to_owned())));
            question("c1", bare)
        };
        let asked = bare(ATTACHMENTS, None).unwrap().unwrap();
        assert!(asked.pod.is_none() && asked.missing.is_some());
        assert_eq!(asked.name, "agent");
        assert!(bare(ATTACHMENTS, Some("other")).unwrap().is_none());
        let two = ATTACHMENTS.replace(
            r#""mounts":["#,
            r#""mounts":[{"container":"two","volume":"vol1","mountPath":"/b"},"#,
        );
        let refused = bare(&two, None).err().unwrap().to_string();
        assert!(refused.contains("agent, two"), "{refused}");
        assert_eq!(bare(&two, Some("two")).unwrap().unwrap().name, "two");
        let every = ATTACHMENTS.replace(r#""container":"agent","#, "");
        assert_eq!(bare(&every, None).unwrap().unwrap().name, "");
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
        assert!(question("c1", pause).unwrap().unwrap().missing.is_some());
    }

    #[test]
    fn the_sandbox_of_crio_needs_nothing_and_its_containers_are_of_a_pod() {
        let made = |kind: &str| {
            let mut made = container("agent", &[]);
            made.annotations
                .retain(|key, _| !key.starts_with("io.kubernetes."));
            let labels = r#"{"io.kubernetes.container.name":"agent","io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"n"}"#;
            for (key, value) in [
                ("ContainerType", kind),
                ("SandboxID", "s1"),
                ("Labels", labels),
            ] {
                let key = format!("io.kubernetes.cri-o.{key}");
                made.annotations.insert(key, value.to_owned());
            }
            made
        };
        assert!(question("s1", made("sandbox")).unwrap().is_none());
        let asked = question("c1", made("container")).unwrap().unwrap();
        let pod = asked.pod.unwrap();
        assert_eq!((pod.sandbox.as_str(), pod.name.as_str()), ("s1", "p"));
        assert_eq!(
            (pod.namespace.as_str(), asked.name.as_str()),
            ("n", "agent")
        );
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
