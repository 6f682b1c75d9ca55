// SPDX-License-Identifier: Apache-2.0
//! Containers that do not run as root.

use testkit::cri::ContainerSpec;

use super::{DATA, create, prepare};
use crate::{Case, driver::Driver, node::Node};

const GROUP: i64 = 4242;

pub(crate) fn cases() -> Vec<Case> {
    [Driver::Local, Driver::TestkitLoop]
        .map(|driver| {
            let name = format!("{driver:?}_a_container_of_the_fs_group_writes_as_uid_1000");
            Case::new(&name.to_lowercase(), driver, writes_as_uid_1000)
        })
        .into()
}

fn writes_as_uid_1000(node: &mut Node) {
    prepare(node);
    node.apply(
        "template",
        &format!(
            "kind: ActorTemplate\nmetadata:\n  name: group\nspec:\n  containers:\n  \
             - name: agent\n    volumeMounts:\n    - name: vol1\n      mountPath: {DATA}\n  \
             volumes:\n  - name: vol1\n    externalVolumeTemplate:\n      capacity: 64Mi\n      \
             storageClassName: fast\n      fsGroup: {GROUP}\n"
        ),
    );
    create(node, "a", "group");
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let stranger = node.run(&pod, &ContainerSpec::idle("agent").as_user(1000, GROUP + 1));
    let refused = node.try_sh(&stranger, "touch /my-data/f");
    assert_ne!(refused.code, 0, "one who is not of the group may write");
    node.cri.remove_container(&stranger).expect("it is removed");
    let spec = ContainerSpec::idle("agent").attempt(1);
    let agent = node.run(&pod, &spec.as_user(1000, GROUP));
    let owner = node.sh(&agent, "touch /my-data/f && stat -c %u:%g /my-data/f");
    assert_eq!(owner, format!("1000:{GROUP}"));
    node.remove_pod(&pod);
    node.suspend("a");

    // What is in the volume stays as the actor made it.
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("agent").as_user(1000, GROUP);
    let agent = node.run(&pod, &spec);
    let owner = node.sh(&agent, "echo more > /my-data/f && stat -c %u:%g /my-data/f");
    assert_eq!(owner, format!("1000:{GROUP}"));
    node.remove_pod(&pod);
}
