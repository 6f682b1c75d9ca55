// SPDX-License-Identifier: Apache-2.0
//! What the policy forbids is refused before anything is recorded or asked of a driver.

use actor_volumes::{
    config::{Listed, Policy},
    error::Kind,
    model::VolumeMode,
};

use crate::node::{Node, Over, Setup};

/// Asks for a volume that the policy forbids.
async fn refused(setup: Setup, rule: &str, said: &str) {
    let over = match setup.volume_mode {
        VolumeMode::Filesystem => Over::Bind,
        VolumeMode::Block => Over::Loop,
    };
    let node = Node::over(over, setup, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    let refused = node.create(&sandbox, "c1").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::PermissionDenied, "{refused}");
    for part in [said, "policy.", "agents/a"] {
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    let counted = format!("actor_volumes_policy_denials_total{{rule=\"{rule}\"}}");
    assert_eq!(node.metric(&counted), Some(1));
    assert_eq!(node.records(), "", "something was recorded");
    for call in ["NodeStageVolume", "NodePublishVolume"] {
        assert_eq!(node.driver.count(call), 0, "{call}");
    }
    assert_eq!(node.agent.held(&node.key()).await, None);
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.finish().await;
}

fn by(policy: Policy) -> Setup {
    Setup {
        policy,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_driver_or_a_namespace_that_is_not_named_gets_nothing() {
    let policy = Policy {
        drivers: Listed::Only(vec!["other.test".parse().unwrap()]),
        ..Policy::default()
    };
    refused(by(policy), "drivers", "testkit.actor-volumes.dev").await;
    let policy = Policy {
        namespaces: Listed::Only(vec!["others".parse().unwrap()]),
        ..Policy::default()
    };
    refused(by(policy), "namespaces", "\"agents\"").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_place_of_the_system_is_no_place_for_a_volume_unless_it_is_allowed() {
    for place in ["/proc", "/etc/my-app", "/usr"] {
        let setup = Setup {
            mount_path: place,
            ..Setup::default()
        };
        refused(setup, "mount_paths", place).await;
    }
    let policy = Policy {
        allow_mount_paths: vec!["/etc/my-app".into()],
        ..Policy::default()
    };
    let setup = Setup {
        mount_path: "/etc/my-app",
        ..by(policy)
    };
    let node = Node::over(Over::Bind, setup, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    assert_eq!(needs.mounts[0].destination, "/etc/my-app");
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn limits_and_block_devices_are_as_the_policy_says() {
    let policy = Policy {
        max_volumes: 0,
        ..Policy::default()
    };
    refused(by(policy), "max_volumes", "would have 1 volumes").await;
    let policy = Policy {
        block_devices: false,
        ..Policy::default()
    };
    let setup = Setup {
        volume_mode: VolumeMode::Block,
        bytes: 8 << 20,
        ..by(policy)
    };
    refused(setup, "block_devices", "vol1").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_volume_is_never_suid_or_dev_and_noexec_where_the_policy_says_so() {
    let exec = Policy::default();
    let noexec = Policy {
        noexec: Listed::Only(vec!["testkit.actor-volumes.dev".parse().unwrap()]),
        ..Policy::default()
    };
    for (policy, more) in [(exec, false), (noexec, true)] {
        let node = Node::over(Over::Bind, by(policy), |_| ()).await;
        let sandbox = node.sandbox("s1", 1);
        let needs = node.needs(&sandbox, "c1").await;
        let options = actor_volumes::delivery::options(&needs.mounts[0]);
        for option in ["nosuid", "nodev"] {
            assert!(options.iter().any(|o| o == option), "{options:?}");
        }
        assert_eq!(options.iter().any(|o| o == "noexec"), more);
        node.end("s1", "c1");
        node.finish().await;
    }
}

/// No kernel with SELinux is needed for what the driver is asked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_selinux_context_reaches_both_calls_of_the_node_as_one_flag() {
    let flag = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"".to_owned();
    let setup = Setup {
        mount_flags: vec![flag.clone()],
        ..Setup::default()
    };
    let node = Node::over(Over::Bind, setup, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        let calls = node.driver.calls();
        let sent = calls.iter().find(|c| c.method == method).unwrap();
        assert_eq!(sent.mount_flags, std::slice::from_ref(&flag), "{method}");
    }
    node.end("s1", "c1");
    node.finish().await;
}
