// SPDX-License-Identifier: Apache-2.0
//! Two nodes, each with a real containerd, and a control plane apart from them.

use testkit::cri::{Annotations, ContainerSpec};

use super::{SHARED, create, qualified, template};
use crate::{
    Case, canary,
    driver::{self, Driver},
    node::Node,
    setup::setup,
    site::Site,
};

pub(crate) fn cases() -> Vec<Case> {
    // Where there is another version, the actor moves to that.
    vec![
        Case::new(
            "an_actor_moves_between_nodes_with_its_data",
            Driver::Testkit,
            an_actor_moves_between_nodes_with_its_data,
        )
        .without_us(),
        Case::new(
            "through_the_guard_an_actor_moves_between_nodes_with_its_data",
            Driver::Testkit,
            an_actor_moves_between_nodes_with_its_data,
        )
        .without_us()
        .guarded(),
        Case::new(
            "what_a_lost_node_holds_goes_on_only_after_a_fence",
            Driver::Testkit,
            what_a_lost_node_holds_goes_on_only_after_a_fence,
        )
        .without_us(),
    ]
}

fn site(node: &mut Node) -> Site<'_> {
    let versions = setup().versions.iter();
    let mut others = versions.filter(|v| **v != node.version);
    let other = others.next().cloned().unwrap_or(node.version.clone());
    let site = Site::start(node, &other);
    site.a.apply(
        "storageclass",
        &format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\n\
             metadata:\n  name: fast\nprovisioner: testkit.actor-volumes.dev\n{}",
            canary::parameters()
        ),
    );
    site.a.apply("template", &template(SHARED, &[("", false)]));
    create(site.a, "a", SHARED);
    site
}

fn resume(site: &Site<'_>, node: &str) -> Annotations {
    site.a.resume_with("a", &["--node", node])
}

fn an_actor_moves_between_nodes_with_its_data(node: &mut Node) {
    let mut site = site(node);
    let first = resume(&site, "node-a");
    let (pod, agent) = site.a.run_agent(&first);
    site.a.sh(&agent, "echo from-a > /my-data/f");
    let name = qualified("a");
    let refused = site.a.av(&["actor", "resume", &name, "--node", "node-b"]);
    let refused = refused.expect_err("it is resumed elsewhere");
    assert!(refused.contains("node-a"), "{refused}");
    site.a.remove_pod(&pod);
    site.a.suspend("a");
    assert_eq!(site.a.held_mounts(), [""; 0]);

    let second = resume(&site, "node-b");
    let (pod, agent) = site.b.run_agent(&second);
    assert_eq!(site.b.sh(&agent, "cat /my-data/f"), "from-a");
    site.b.sh(&agent, "echo from-b >> /my-data/f");
    // The word for the first node is over.
    for annotations in [&first, &second] {
        let late = site.a.run_pod(annotations);
        let spec = ContainerSpec::idle("agent");
        let refused = site.a.cri.create_container(&late, &spec);
        let refused = refused.expect_err("the actor is not resumed there");
        assert!(refused.message.contains("agents/a"), "{refused}");
        site.a.remove_pod(&late);
    }
    site.b.remove_pod(&pod);
    site.a.suspend("a");

    let third = resume(&site, "node-a");
    let (pod, agent) = site.a.run_agent(&third);
    assert_eq!(site.a.sh(&agent, "cat /my-data/f"), "from-a\nfrom-b");
    site.a.remove_pod(&pod);
    end(site);
}

fn what_a_lost_node_holds_goes_on_only_after_a_fence(node: &mut Node) {
    let mut site = site(node);
    let annotations = resume(&site, "node-b");
    let (pod, agent) = site.b.run_agent(&annotations);
    site.b.sh(&agent, "echo from-b > /my-data/f && sync");
    site.kill_agent(1);
    site.until_state("node-b", "Away");

    let name = qualified("a");
    let suspended = site
        .a
        .av(&["actor", "suspend", &name, "--timeout", "2s"])
        .expect_err("nobody says that the volume is released");
    assert!(suspended.contains("node fence node-b"), "{suspended}");
    let resumed = ["actor", "resume", &name, "--node", "node-a"];
    let refused = site
        .a
        .av(&[&resumed[..], &["--timeout", "2s"]].concat())
        .expect_err("the volume may be in use on the other node");
    assert!(refused.contains("node-b"), "{refused}");
    let refused = site.a.av(&["node", "fence", "node-b"]);
    let refused = refused.expect_err("it must be confirmed that the node is off");
    assert!(refused.contains("--confirm-off"), "{refused}");

    // As when the node is switched off.
    site.b.remove_pod(&pod);
    driver::set_off(&site.a.dir, "node-b");
    site.a.must(&["node", "fence", "node-b", "--confirm-off"]);
    // The node is back: what it had is taken away, and its word is over. Both
    // nodes share one kernel here, on which the next container would be seen as
    // a holder: so it comes after this.
    site.start_agent(1);
    site.until_state("node-b", "Ready");
    assert_eq!(site.b.held_mounts(), [""; 0]);
    let late = site.b.run_pod(&annotations);
    let refused = site
        .b
        .cri
        .create_container(&late, &ContainerSpec::idle("agent"))
        .expect_err("the actor is not resumed there any more");
    assert!(refused.message.contains("agents/a"), "{refused}");
    site.b.remove_pod(&late);

    let there = resume(&site, "node-a");
    let (pod, agent) = site.a.run_agent(&there);
    assert_eq!(site.a.sh(&agent, "cat /my-data/f"), "from-b");
    site.a.remove_pod(&pod);
    end(site);
}

/// Deletes the actor; nothing is left of it anywhere.
fn end(site: Site<'_>) {
    site.a.suspend("a");
    site.a.delete("a");
    let left = site.finish();
    assert!(left.is_empty(), "left: {left:?}");
}
