// SPDX-License-Identifier: Apache-2.0
//! containerd or our own daemon ends in the middle of it all.

use super::{SHARED, create, prepare};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = on(Driver::Local, "");
    cases = cases.into_iter().map(Case::everywhere).collect();
    let name = "our_daemon_killed_while_an_actor_runs_takes_over_where_it_was";
    cases.push(Case::new(
        name,
        Driver::Local,
        our_daemon_killed_while_an_actor_runs_takes_over_where_it_was,
    ));
    let name = "a_second_daemon_waits_for_the_end_of_the_first_and_goes_on_where_it_was";
    cases.push(Case::new(name, Driver::Local, a_second_daemon_waits).guarded());
    cases
}

/// As in a rolling update, where the next pod starts before the last one ends.
fn a_second_daemon_waits(node: &mut Node) {
    prepare(node);
    for actor in ["a", "b", "c"] {
        create(node, actor, SHARED);
    }
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo first > /my-data/f");
    let mounts = node.held_mounts();
    let mut others = vec![(pod, agent)];
    for (actor, name, killed) in [("b", "serve-2", true), ("c", "serve-3", false)] {
        let let_in = node.connections();
        let second = node.one_more_serve(name);
        until_true("the second daemon says that it waits", SOON, || {
            let log = std::fs::read_to_string(node.log(name)).unwrap_or_default();
            log.contains("waiting for its end")
        });
        // It is not known to the runtime, and the first one works as before.
        assert_eq!(node.connections(), let_in);
        let annotations = node.resume(actor);
        let (pod, agent) = node.run_agent(&annotations);
        node.sh(&agent, "echo first > /my-data/f");
        node.replace_serve(second, |first| {
            let mut first = first.expect("it runs");
            assert!(first.is_running(), "two at a time");
            if !killed {
                let status = first.terminate(SOON).expect("it ends on SIGTERM");
                assert!(status.success(), "{status}");
            }
        });
        others.push((pod, agent));
    }
    assert!(mounts.iter().all(|m| node.held_mounts().contains(m)));
    for (pod, agent) in &others {
        node.sh(
            agent,
            "grep -q first /my-data/f && echo second > /my-data/f",
        );
        node.remove_pod(pod);
    }
    for actor in ["a", "b", "c"] {
        node.suspend(actor);
    }
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "second");
    node.remove_pod(&pod);
}

pub(super) fn on(driver: Driver, prefix: &str) -> Vec<Case> {
    let name =
        format!("{prefix}containerd_restarted_while_actors_run_still_releases_their_volumes");
    vec![Case::new(
        &name,
        driver,
        containerd_restarted_while_actors_run_still_releases_their_volumes,
    )]
}

fn containerd_restarted_while_actors_run_still_releases_their_volumes(node: &mut Node) {
    prepare(node);
    let mut running = Vec::new();
    for actor in ["a", "b", "c"] {
        create(node, actor, SHARED);
        let annotations = node.resume(actor);
        let (pod, agent) = node.run_agent(&annotations);
        node.sh(&agent, &format!("echo {actor} > /my-data/f"));
        running.push((actor, pod, agent));
    }
    node.kill_containerd();
    node.restart_containerd();
    for (actor, _, agent) in &running {
        assert_eq!(node.sh(agent, "cat /my-data/f"), *actor, "it ran on");
    }
    // The runtime does not relay the end of pods that are older than itself:
    // one is stopped container first, one at once, one is removed by force.
    let [a, b, c] = &running[..] else {
        unreachable!("three were started");
    };
    node.cri.stop_container(&a.2).expect("it stops");
    node.cri.stop_pod(&a.1.id).expect("the sandbox stops");
    node.cri.stop_pod(&b.1.id).expect("the sandbox stops");
    node.cri
        .remove_pod(&c.1.id)
        .expect("the sandbox is removed");
    // No verb of ours helps: the end itself is noticed.
    until_true("the volumes of all three are released", SOON, || {
        node.held_mounts().is_empty()
    });
    for (actor, _, _) in &running {
        node.suspend(actor);
    }
    // And the node serves new pods as before.
    let annotations = node.resume("b");
    let (pod, agent) = node.run_agent(&annotations);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "b");
    node.remove_pod(&pod);
}

fn our_daemon_killed_while_an_actor_runs_takes_over_where_it_was(node: &mut Node) {
    prepare(node);
    for actor in ["a", "b"] {
        create(node, actor, SHARED);
    }
    let annotations = node.resume("a");
    let (pod, agent) = node.run_agent(&annotations);
    node.sh(&agent, "echo kept > /my-data/f");
    let other = node.resume("b");
    let (other_pod, _) = node.run_agent(&other);
    let both = node.held_mounts().len();
    node.kill_serve();
    assert_eq!(
        node.sh(&agent, "cat /my-data/f && echo more >> /my-data/f"),
        "kept"
    );
    // The end of this one is heard by nobody.
    node.remove_pod(&other_pod);
    node.start_serve();
    until_true("the volume of the one that ended is released", SOON, || {
        node.held_mounts().len() == both / 2
    });
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept\nmore");
    assert_eq!(
        node.resume("a"),
        annotations,
        "a resume repeated gives the same grant"
    );
    node.suspend("b");
    node.remove_pod(&pod);
    node.suspend("a");
    assert_eq!(node.held_mounts(), [""; 0]);
}
