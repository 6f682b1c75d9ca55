// SPDX-License-Identifier: Apache-2.0
//! What the policy of a node forbids is refused with the rule, and nothing is mounted;
//! what it forces is seen in the container's own mount table.

use testkit::cri::{ContainerSpec, HostMount};

use super::{DATA, SHARED, create, prepare};
use crate::{Case, driver::Driver, leaks, node::Node};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run| Case::new(name, Driver::Local, run);
    vec![
        case(
            "a_volume_takes_no_place_of_the_system_unless_it_is_allowed",
            a_volume_takes_no_place_of_the_system_unless_it_is_allowed,
        ),
        case(
            "drivers_namespaces_and_limits_of_the_policy_are_kept",
            drivers_namespaces_and_limits_of_the_policy_are_kept,
        ),
        case(
            "a_volume_brings_no_suid_no_device_and_where_asked_for_no_program",
            a_volume_brings_no_suid_no_device_and_where_asked_for_no_program,
        )
        .everywhere(),
    ]
}

/// Applies a template whose one volume is mounted there.
fn at(node: &Node, name: &str, path: &str) {
    node.apply(
        "template",
        &format!(
            "kind: ActorTemplate\nmetadata:\n  name: {name}\nspec:\n  containers:\n  \
             - name: agent\n    volumeMounts:\n    - name: vol1\n      mountPath: {path}\n  \
             volumes:\n  - name: vol1\n    externalVolumeTemplate:\n      capacity: 64Mi\n      \
             storageClassName: fast\n"
        ),
    );
}

/// Resumes the actor and has its container refused, by this rule.
fn is_refused(node: &mut Node, actor: &str, said: &str) {
    let annotations = node.resume(actor);
    let pod = node.run_pod(&annotations);
    let refusal = node
        .cri
        .create_container(&pod, &ContainerSpec::idle("agent"))
        .expect_err(said);
    assert!(refusal.message.contains(said), "{said}: {refusal}");
    let mounts = leaks::entries(&node.dir.join("m"));
    assert_eq!(mounts, [""; 0], "{said}: something is on the node");
    node.remove_pod(&pod);
    node.suspend(actor);
}

/// Begins the configuration with this policy, instead of the one before.
fn policy(node: &mut Node, before: &str, now: &str) {
    let table = |keys: &str| match keys {
        "" => "[guard]".to_owned(),
        keys => format!("[policy]\n{keys}\n[guard]"),
    };
    node.configure(&table(before), &table(now));
    node.kill_serve();
    node.start_serve();
}

fn a_volume_takes_no_place_of_the_system_unless_it_is_allowed(node: &mut Node) {
    prepare(node);
    for (name, path, why) in [
        ("etc", "/etc/my-app", "which is below /etc"),
        ("proc", "/proc/sys", "which is below /proc"),
        ("sys", "/sys/fs/cgroup", "which is below /sys"),
        ("dev", "/dev/shm", "which is below /dev"),
        ("usr", "/usr", "which would hide /usr/bin"),
    ] {
        at(node, name, path);
        create(node, name, name);
        is_refused(node, name, why);
    }

    // Nor does one hide what the pod mounts itself.
    at(node, "own", DATA);
    create(node, "own", "own");
    let annotations = node.resume("own");
    let pod = node.run_pod(&annotations);
    let mut spec = ContainerSpec::idle("agent");
    spec.mounts.push(HostMount {
        source: node.dir.join("tmp"),
        destination: format!("{DATA}/tmp"),
    });
    let end = std::time::Instant::now() + crate::node::SOON;
    let refusal = loop {
        let refused = node.cri.create_container(&pod, &spec);
        let refusal = refused.expect_err("it would hide the pod's own mount");
        if !crate::node::is_retryable(&refusal) || std::time::Instant::now() > end {
            break refusal;
        }
    };
    let said = "would hide the container's own mount";
    assert!(refusal.message.contains(said), "{refusal}");
    node.remove_pod(&pod);

    policy(node, "", "allow_mount_paths = [\"/etc/my-app\"]");
    let annotations = node.resume("etc");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo kept > /etc/my-app/f");
    node.remove_pod(&pod);
    is_refused(node, "proc", "policy.deny_mount_paths");
}

fn drivers_namespaces_and_limits_of_the_policy_are_kept(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let mut before = String::new();
    for (keys, said) in [
        (
            "drivers = [\"other.example\"]",
            "policy.drivers of this node does not name driver local.actor-volumes.dev",
        ),
        (
            "namespaces = [\"others\"]",
            "policy.namespaces of this node does not name namespace",
        ),
        ("max_volumes = 0", "policy.max_volumes of this node is 0"),
        ("max_mounts = 0", "policy.max_mounts of this node is 0"),
    ] {
        policy(node, &before, keys);
        keys.clone_into(&mut before);
        is_refused(node, "a", said);
    }
    policy(
        node,
        &before,
        "drivers = [\"local.actor-volumes.dev\"]\nnamespaces = [\"agents\"]\nmax_volumes = 1\nmax_mounts = 1",
    );
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "touch /my-data/f");
    node.remove_pod(&pod);
}

fn a_volume_brings_no_suid_no_device_and_where_asked_for_no_program(node: &mut Node) {
    prepare(node);
    create(node, "a", SHARED);
    let flags = |node: &Node, agent: &str| {
        let line = node.sh(agent, "grep ' /my-data ' /proc/self/mountinfo");
        let options = line.split(' ').nth(5).expect("mountinfo has options");
        let all: Vec<String> = options.split(',').map(str::to_owned).collect();
        ["nosuid", "nodev", "noexec"].map(|flag| all.iter().any(|f| f == flag))
    };
    let program =
        "cp /bin/busybox /my-data/busybox && chmod 4755 /my-data/busybox && /my-data/busybox true";
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(flags(node, &agent), [true, true, false]);
    node.sh(&agent, program);
    let made = node.try_sh(
        &agent,
        "mknod /my-data/null c 1 3 && echo x > /my-data/null",
    );
    assert_ne!(made.code, 0, "a device of the volume was opened");
    node.remove_pod(&pod);
    node.suspend("a");

    policy(node, "", "noexec = [\"local.actor-volumes.dev\"]");
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(flags(node, &agent), [true, true, true]);
    let refused = node.try_sh(&agent, "/my-data/busybox true");
    assert_eq!(refused.code, 126, "{refused:?}");
    node.remove_pod(&pod);
}
