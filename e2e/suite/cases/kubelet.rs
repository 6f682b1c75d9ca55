// SPDX-License-Identifier: Apache-2.0
//! With a real kubelet: it decides when containers are created, and tries again.

use std::{fs, time::Duration};

use super::{DATA, create, prepare, template};
use crate::{Case, daemon::until, driver::Driver, kubelet::Kubelet, node::Node};

/// A kubelet waits for seconds before it starts a container again.
const AT_LAST: Duration = Duration::from_secs(90);

/// The template mounts in two of three containers.
const TEMPLATE: &str = "with-init";

pub(crate) fn cases() -> Vec<Case> {
    let name = "a_kubelet_runs_a_pod_with_its_volume_in_the_right_containers_whatever_happens";
    vec![
        Case::new(name, Driver::Testkit, kubelet)
            .guarded()
            .needing("kubelet"),
    ]
}

/// An init container that writes, a sidecar without the volume, and the agent, which
/// adds a line at each start.
fn spec() -> String {
    let container = |name: &str, script: &str, more: &str| {
        format!(
            "  - name: {name}\n    image: localhost/actor-volumes/busybox:1\n    imagePullPolicy: Never\n    command: [/bin/busybox, sh, -c, '{script}']\n{more}"
        )
    };
    format!(
        "  hostNetwork: true\n  terminationGracePeriodSeconds: 1\n  automountServiceAccountToken: false\n  enableServiceLinks: false\n  initContainers:\n{}{}  containers:\n{}",
        container(
            "prepare",
            &format!("echo prepared >> {DATA}/log && sync"),
            ""
        ),
        container("sidecar", "sleep 2147483647", "    restartPolicy: Always\n"),
        container(
            "agent",
            &format!("echo started >> {DATA}/log && sync && sleep 2147483647"),
            ""
        ),
    )
}

/// The container of this name, once one runs that is not `old`.
fn running(node: &Node, name: &str, old: &str) -> String {
    until(&format!("{name} runs"), AT_LAST, || {
        let pods = node.cri.pods().ok()?;
        let mut found = pods.iter().filter_map(|pod| {
            let (id, runs) = node.cri.containers(pod).ok()?.remove(name)?;
            (runs && id != old).then_some(id)
        });
        found.next()
    })
}

fn kubelet(node: &mut Node) {
    prepare(node);
    let mounts = [("prepare", false), ("agent", false)];
    node.apply("template", &template(TEMPLATE, &mounts));
    create(node, "a", TEMPLATE);
    let kubelet = Kubelet::start(node);
    // Slower than one try may wait.
    node.driver_delay("NodePublishVolume", Duration::from_secs(4));
    let annotations = node.resume("a");
    kubelet.run("actor", &annotations, &spec());
    let agent = running(node, "agent", "");
    node.driver_well();
    let log = |agent: &str| node_log(node, agent);
    assert_eq!(log(&agent), ["prepared", "started"]);
    let sidecar = running(node, "sidecar", "");
    node.sh(&sidecar, &format!("[ ! -e {DATA} ]"));

    // It crashes, twice.
    let mut agent = agent;
    for crash in 1..=2 {
        node.try_sh(&agent, "kill -KILL 1");
        node.cri.stop_container(&agent).expect("it is gone");
        agent = running(node, "agent", &agent);
        assert_eq!(log(&agent).len(), 2 + crash);
    }
    node.sh(&sidecar, &format!("[ ! -e {DATA} ]"));
    assert_eq!(node.driver_calls("NodePublishVolume"), 1);
    restarted(node, &agent);

    // It stops the sandbox, and removes it within minutes.
    kubelet.delete("actor");
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);

    // Another pod of the same actor finds it all.
    let annotations = node.resume("a");
    kubelet.run("again", &annotations, &spec());
    let agent = running(node, "agent", "");
    let log = node_log(node, &agent);
    assert_eq!(
        log.iter().filter(|l| *l == "prepared").count(),
        2,
        "{log:?}"
    );
    kubelet.delete("again");
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
    drop(kubelet);
    let _ = fs::remove_dir(node.dir.join("kubelet/plugins"));
}

fn node_log(node: &Node, agent: &str) -> Vec<String> {
    let text = node.sh(agent, &format!("cat {DATA}/log"));
    text.lines().map(str::to_owned).collect()
}

/// containerd starts again under the pod, whose agent crashes after that.
fn restarted(node: &mut Node, agent: &str) {
    let before = node_log(node, agent);
    node.kill_containerd_alone();
    node.restart_containerd();
    assert_eq!(node_log(node, agent), before, "it ran on");
    node.cri.stop_container(agent).expect("it stops");
    let next = running(node, "agent", agent);
    assert_eq!(node_log(node, &next).len(), before.len() + 1);
}
