// SPDX-License-Identifier: Apache-2.0
//! Raw volumes: a block device in the container.

use testkit::cri::{ContainerSpec, Pod};

use super::{create, prepare};
use crate::{Case, driver::Driver, node::Node};

const TEMPLATE: &str = "\
kind: ActorTemplate
metadata: {name: raw}
spec:
  containers:
  - name: agent
    volumeDevices: [{name: vol1, devicePath: /dev/xvda}]
  volumes:
  - name: vol1
    externalVolumeTemplate: {capacity: 64Mi, storageClassName: fast, volumeMode: Block}
";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "a_raw_volume_is_a_device_of_its_container_alone_and_keeps_its_bytes",
            Driver::TestkitLoop,
            a_raw_volume_is_a_device_of_its_container_alone_and_keeps_its_bytes,
        )
        .everywhere(),
    ]
}

fn a_raw_volume_is_a_device_of_its_container_alone_and_keeps_its_bytes(node: &mut Node) {
    prepare(node);
    node.apply("template", TEMPLATE);
    create(node, "a", "raw");
    let (pod, agent) = run(node);
    let size = node.sh(&agent, "test -b /dev/xvda && blockdev --getsize64 /dev/xvda");
    assert_eq!(size, (64 << 20).to_string());
    node.sh(
        &agent,
        "echo precious | dd of=/dev/xvda bs=512 seek=7 conv=fsync",
    );
    let other = node.run(&pod, &ContainerSpec::idle("other"));
    let seen = node.try_sh(&other, "test -e /dev/xvda");
    assert_ne!(seen.code, 0, "a container that names no device has it");
    node.remove_pod(&pod);
    node.suspend("a");

    let (pod, agent) = run(node);
    let read = "dd if=/dev/xvda bs=512 skip=7 count=1 | head -n 1";
    assert_eq!(node.sh(&agent, read), "precious");
    node.remove_pod(&pod);
}

fn run(node: &mut Node) -> (Pod, String) {
    let annotations = node.resume("a");
    node.run_agent(&annotations)
}
