// SPDX-License-Identifier: Apache-2.0
//! Pods with users of their own (`hostUsers: false`): they own their volume's files, or
//! are refused with the reason.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Instant};

use testkit::cri::{Annotations, ContainerSpec, Pod};

use super::{SHARED, create, prepare};
use crate::{
    Case,
    driver::Driver,
    node::{Node, SOON, is_retryable},
    setup::setup,
};

/// Of this user of the host a pod's root is made.
const FIRST: u32 = 200_000;

pub(crate) fn cases() -> Vec<Case> {
    // Only this containerd gives such pods the host's network, and the suite has no other.
    if setup().main_version != "2.3" {
        return Vec::new();
    }
    vec![
        Case::new(
            "a_pod_with_users_of_its_own_owns_its_volumes_files",
            Driver::TestkitLoop,
            a_pod_with_users_of_its_own_owns_its_volumes_files,
        )
        .with_runc("runc-1.5")
        .guarded(),
        Case::new(
            "a_pod_with_users_of_its_own_is_refused_where_the_file_system_cannot_map_them",
            Driver::TestkitFuse,
            |node| is_refused(node, "its file system, fuse"),
        )
        .with_runc("runc-1.5"),
        Case::new(
            "a_pod_with_users_of_its_own_is_refused_where_runc_cannot_map_them",
            Driver::TestkitLoop,
            |node| is_refused(node, "use runc 1.2 or newer"),
        ),
    ]
}

fn run(node: &mut Node, annotations: &Annotations) -> Pod {
    let spec = node.pod_spec(annotations).with_users_from(FIRST);
    let run = node.cri.run_pod(&spec);
    run.unwrap_or_else(|e| panic!("the sandbox does not run: {e}"))
}

/// Where the only volume is published.
fn published(node: &Node) -> String {
    let mut mounts = node.held_mounts();
    mounts.retain(|mount| mount.contains("/pub/"));
    let [mount] = mounts.as_slice() else {
        panic!("not one publication: {mounts:?}");
    };
    mount.clone()
}

fn a_pod_with_users_of_its_own_owns_its_volumes_files(node: &mut Node) {
    // It asks its runtime once, at its start, what that can: the guard has its
    // configuration by now, and knows the real one.
    node.kill_containerd();
    node.restart_containerd();
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let pod = run(node, &annotations);
    let agent = node.run(&pod, &ContainerSpec::idle("agent"));
    let users = node.sh(&agent, "cat /proc/self/uid_map");
    let users: Vec<&str> = users.split_whitespace().collect();
    assert_eq!(users, ["0", "200000", "65536"], "it has the host's users");
    let owner = node.sh(&agent, "echo kept > /my-data/f && stat -c %u:%g /my-data/f");
    assert_eq!(owner, "0:0");
    node.sh(&agent, "touch /my-data/g && chown 1000:1001 /my-data/g");
    let line = node.sh(&agent, "grep ' /my-data ' /proc/self/mountinfo");
    for flag in ["nosuid", "nodev", "idmapped"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    // On the disk are the users that the pod sees, and not those of the host.
    let at = published(node);
    let ids = |file: &str| {
        let found = fs::metadata(Path::new(&at).join(file)).expect("the pod made it");
        (found.uid(), found.gid())
    };
    assert_eq!((ids("f"), ids("g")), ((0, 0), (1000, 1001)));
    node.remove_pod(&pod);
    node.suspend("a");

    // So any other pod of the actor finds them as they were.
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    let owners = node.sh(&agent, "stat -c %u:%g /my-data/f /my-data/g");
    assert_eq!(owners, "0:0\n1000:1001");
    node.remove_pod(&pod);
}

fn is_refused(node: &mut Node, why: &str) {
    prepare(node);
    create(node, "a", SHARED);
    let annotations = node.resume("a");
    let pod = run(node, &annotations);
    let end = Instant::now() + SOON;
    let refusal = loop {
        let refused = node
            .cri
            .create_container(&pod, &ContainerSpec::idle("agent"));
        let refusal = refused.expect_err("its files would belong to nobody");
        if !is_retryable(&refusal) || Instant::now() > end {
            break refusal;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    for part in [why, "hostUsers: true"] {
        assert!(refusal.message.contains(part), "{part}: {refusal}");
    }
    node.remove_pod(&pod);
    node.suspend("a");

    // With the host's users it runs.
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}
