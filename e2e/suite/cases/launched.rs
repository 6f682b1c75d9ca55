// SPDX-License-Identifier: Apache-2.0
//! The runtime starts the plugin itself.

use std::{fs, os::unix::fs::symlink};

use super::{SHARED, create, prepare, runs_in_the_end};
use crate::{
    Case,
    daemon::until_true,
    driver::Driver,
    node::{Node, SOON},
    setup::actor_volumes,
};
use testkit::cri::{Annotations, ContainerSpec};

pub(crate) fn cases() -> Vec<Case> {
    let name = "a_plugin_that_the_runtime_starts_works_and_ends_with_it";
    vec![
        Case::new(name, Driver::Local, launched)
            .guarded()
            .everywhere(),
    ]
}

fn serves(node: &Node) {
    until_true("the plugin serves", SOON, || {
        node.av(&["actor", "ls"]).is_ok()
    });
}

fn launched(node: &mut Node) {
    prepare(node);
    for actor in ["a", "b"] {
        create(node, actor, SHARED);
    }
    node.kill_serve();
    let plugins = node.dir.join("nri-plugins");
    let log = node.log("launched");
    node.configure("[log]\n", &format!("[log]\nfile = \"{}\"\n", log.display()));
    fs::create_dir_all(&plugins).expect("the node's directory takes directories");
    symlink(
        actor_volumes().get_program(),
        plugins.join("10-actor-volumes"),
    )
    .expect("the directory is new");
    fs::rename(
        node.dir.join("config.toml"),
        plugins.join("10-actor-volumes.toml"),
    )
    .expect("it is on the same file system");
    symlink(
        plugins.join("10-actor-volumes.toml"),
        node.dir.join("config.toml"),
    )
    .expect("it was moved");
    let ends = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.matches("so does this process").count()
    };
    node.kill_containerd();
    node.restart_containerd();
    serves(node);
    let mut kept = Vec::new();
    for actor in ["a", "b"] {
        let annotations = node.resume(actor);
        let pod = node.run_pod(&annotations);
        let agent = runs_in_the_end(node, &pod, &ContainerSpec::idle("agent"));
        node.sh(&agent, "echo kept > /my-data/f");
        kept.push((pod, agent));
    }
    let mounts = node.held_mounts();

    node.kill_containerd_alone();
    until_true("the plugin ends with its runtime", SOON, || ends() == 1);
    assert_eq!(node.held_mounts(), mounts, "the mounts stay");
    node.restart_containerd();
    serves(node);
    for (pod, agent) in &kept {
        assert_eq!(node.sh(agent, "cat /my-data/f"), "kept");
        node.remove_pod(pod);
    }
    for actor in ["a", "b"] {
        node.suspend(actor);
    }
    assert_eq!(node.held_mounts(), [""; 0]);
    let annotations = node.resume("a");
    let pod = node.run_pod(&annotations);
    let agent = runs_in_the_end(node, &pod, &ContainerSpec::idle("agent"));
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);

    // Where a daemon has the directories it stands by, and takes over from it.
    node.kill_containerd_alone();
    until_true("it ends again", SOON, || ends() == 2);
    let daemon = node.one_more_serve("serve");
    serves(node);
    node.restart_containerd();
    let pod = node.run_pod(&annotations);
    let spec = ContainerSpec::idle("agent");
    let refused = node.cri.create_container(&pod, &spec);
    let refused = refused.expect_err("it says who has them").message;
    assert!(refused.contains("this one waits for its end"), "{refused}");
    let foreign = node.run_pod(&Annotations::new());
    node.run(&foreign, &ContainerSpec::idle("main"));
    drop(daemon);
    let agent = runs_in_the_end(node, &pod, &spec);
    assert_eq!(node.sh(&agent, "cat /my-data/f"), "kept");
    node.remove_pod(&pod);

    // A broken configuration keeps no runtime from its start, nor foreign pods.
    node.kill_containerd_alone();
    until_true("it ends", SOON, || ends() == 3);
    node.configure("[log]", "[nonsense]");
    node.restart_containerd();
    node.run(&foreign, &ContainerSpec::idle("other"));
    let pod = node.run_pod(&annotations);
    let refused = node.cri.create_container(&pod, &spec);
    let refused = refused.expect_err("it has no configuration").message;
    assert!(refused.contains("nonsense"), "{refused}");
    node.remove_pod(&pod);
    node.configure("[nonsense]", "[log]");
    node.kill_containerd_alone();
    node.restart_containerd();
    serves(node);
    node.suspend("a");
}
