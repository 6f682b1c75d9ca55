// SPDX-License-Identifier: Apache-2.0
//! CRI-O tells of a container in other annotations than containerd's CRI. Pure.

use std::collections::BTreeMap;

use super::{
    question::{CONTAINER_TYPE, SANDBOX_ID, SANDBOX_NAME, SANDBOX_NAMESPACE},
    spec::CONTAINER_NAME,
};

const ITS_TYPE: &str = "io.kubernetes.cri-o.ContainerType";
const ITS_SANDBOX: &str = "io.kubernetes.cri-o.SandboxID";

/// JSON: what a kubelet labels the container with, as the CRI passes it on.
const LABELS: &str = "io.kubernetes.cri-o.Labels";

/// What the labels tell, and how containerd's CRI names it.
const OF_LABELS: [(&str, &str); 3] = [
    ("io.kubernetes.container.name", CONTAINER_NAME),
    ("io.kubernetes.pod.name", SANDBOX_NAME),
    ("io.kubernetes.pod.namespace", SANDBOX_NAMESPACE),
];

/// Adds what containerd would tell, where CRI-O has made the container. What is missing
/// then is missed by whoever needs it.
pub(super) fn translate(all: &mut BTreeMap<String, String>) {
    let Some(kind) = all.get(ITS_TYPE).cloned() else {
        return;
    };
    let mut told = vec![(CONTAINER_TYPE, kind)];
    told.extend(all.get(ITS_SANDBOX).map(|id| (SANDBOX_ID, id.clone())));
    let labels = all.get(LABELS).map(String::as_str).unwrap_or_default();
    let labels: BTreeMap<String, String> = serde_json::from_str(labels).unwrap_or_default();
    let label = |(label, key)| labels.get(label).map(|value| (key, value.clone()));
    told.extend(OF_LABELS.into_iter().filter_map(label));
    for (key, value) in told {
        all.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        owned.collect()
    }

    #[test]
    fn a_container_of_crio_is_told_as_containerd_would() {
        let labels = r#"{"io.kubernetes.container.name":"agent","io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"n","x":"y"}"#;
        let mut all = of(&[
            (ITS_TYPE, "container"),
            (ITS_SANDBOX, "s1"),
            (LABELS, labels),
        ]);
        translate(&mut all);
        for (key, value) in [
            (CONTAINER_TYPE, "container"),
            (SANDBOX_ID, "s1"),
            (CONTAINER_NAME, "agent"),
            (SANDBOX_NAME, "p"),
            (SANDBOX_NAMESPACE, "n"),
        ] {
            assert_eq!(all[key], value);
        }
    }

    #[test]
    fn what_it_does_not_tell_is_not_made_up_and_others_are_let_be() {
        let mut all = of(&[(ITS_TYPE, "sandbox"), (ITS_SANDBOX, "s1"), (LABELS, "{")]);
        translate(&mut all);
        assert_eq!(all[CONTAINER_TYPE], "sandbox");
        assert!(!all.contains_key(CONTAINER_NAME));
        let before = of(&[(LABELS, "{}"), ("a", "b")]);
        let mut other = before.clone();
        translate(&mut other);
        assert_eq!(other, before);
    }
}
