// SPDX-License-Identifier: Apache-2.0
//! All cases, by what they are about.

mod annotations;
mod attack_driver;
mod attack_grants;
mod bind;
mod breach;
mod children;
mod daemon_set;
mod data;
mod delete;
mod doctor;
mod drain;
mod driver_down;
mod group;
mod guard;
mod guard_crun;
mod gvisor;
mod hang;
mod hostpath;
mod killed;
mod kubelet;
mod late;
mod launched;
mod many;
mod pace;
mod plain;
mod policy;
mod raw;
mod restart;
mod slow;
mod storm;
mod sub_path;
mod userns;
mod warm;

use std::{thread, time::Duration};

use testkit::cri::{ContainerSpec, Pod};

use crate::{
    Case, canary,
    daemon::until,
    matrix,
    node::{NAMESPACE, Node, SOON},
};

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        plain::cases(),
        policy::cases(),
        userns::cases(),
        attack_driver::cases(),
        daemon_set::cases(),
        data::cases(),
        group::cases(),
        sub_path::cases(),
        breach::cases(),
        guard::cases(),
        guard_crun::cases(),
        gvisor::cases(),
        raw::cases(),
        warm::cases(),
        bind::cases(),
        annotations::cases(),
        attack_grants::cases(),
        slow::cases(),
        storm::cases(),
        pace::cases(),
        driver_down::cases(),
        doctor::cases(),
        drain::cases(),
        restart::cases(),
        killed::cases(),
        children::cases(),
        kubelet::cases(),
        late::cases(),
        launched::cases(),
        many::cases(),
        delete::cases(),
        hang::cases(),
        hostpath::cases(),
        matrix::cases(),
    ]
    .concat()
}

/// Where the templates below show the volume.
pub(crate) const DATA: &str = "/my-data";

/// One volume for every container of the pod.
pub(crate) const SHARED: &str = "shared";

/// One volume, writable in the container `agent`, read-only in `reader`.
const PAIR: &str = "pair";

/// Applies a storage class of the node's driver, and the templates.
pub(crate) fn prepare(node: &Node) {
    let driver = node
        .options
        .driver
        .expect("only nodes with a driver have actors");
    node.apply(
        "storageclass",
        &format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\n\
             metadata:\n  name: fast\nprovisioner: {}\n{}",
            driver.name(),
            canary::parameters()
        ),
    );
    node.apply("template", &template(SHARED, &[("", false)]));
    node.apply(
        "template",
        &template(PAIR, &[("agent", false), ("reader", true)]),
    );
}

/// A template with one volume and these containers: their names, and whether
/// they may only read.
fn template(name: &str, containers: &[(&str, bool)]) -> String {
    let mut text =
        format!("kind: ActorTemplate\nmetadata:\n  name: {name}\nspec:\n  containers:\n");
    for (container, read_only) in containers {
        text.push_str("  - image: my-agent-image:v1.2.3\n");
        if !container.is_empty() {
            text.push_str(&format!("    name: {container}\n"));
        }
        text.push_str(&format!(
            "    volumeMounts:\n    - name: vol1\n      mountPath: {DATA}\n      readOnly: {read_only}\n"
        ));
    }
    text.push_str(
        "  volumes:\n  - name: vol1\n    externalVolumeTemplate:\n      \
         capacity: 64Mi\n      storageClassName: fast\n",
    );
    text
}

/// Makes an actor and waits until its volume is there.
pub(crate) fn create(node: &Node, actor: &str, template: &str) {
    let name = qualified(actor);
    node.must(&["actor", "create", &name, "--template", template, "--wait"]);
}

/// The actor's name as the command line wants it.
pub(crate) fn qualified(actor: &str) -> String {
    format!("{NAMESPACE}/{actor}")
}

/// As a kubelet does: whatever it is refused for, it is tried again.
fn runs_in_the_end(node: &Node, pod: &Pod, spec: &ContainerSpec) -> String {
    let mut attempt = spec.attempt;
    until("the container runs", SOON, || {
        attempt += 1;
        thread::sleep(Duration::from_millis(200));
        let spec = spec.clone().attempt(attempt);
        let id = node.cri.create_container(pod, &spec).ok()?;
        if node.cri.start_container(&id).is_ok() {
            return Some(id);
        }
        node.cri.remove_container(&id).expect("it is removed");
        None
    })
}
