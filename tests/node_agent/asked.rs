// SPDX-License-Identifier: Apache-2.0
//! What the control plane asks of the node: quiet, growth, usage. And the
//! secrets that a driver asks for.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use actor_volumes::{csi::ControllerExpand, error::Kind, model::SecretUse};
use testkit::csi::{Expansion, Fault};

use crate::node::{Node, Over, Setup};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_volume_grows_once_it_is_published_and_is_not_asked_for_twice() {
    let setup = Setup {
        bytes: 16 * MIB,
        ..Setup::default()
    };
    let node = Node::over(Over::Loop, setup, |o| {
        o.expand_controller = true;
        o.expand_node = true;
        o.expansion = Some(Expansion::Online);
        o.node_expansion_required = true;
    })
    .await;
    let request = ControllerExpand {
        volume_id: node.volume.volume_id.clone(),
        required_bytes: 64 * MIB,
        capability: node.setup.capability(),
        secrets: Default::default(),
    };
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    node.end("s1", "c1");
    node.until_released().await;
    node.client().controller_expand(&request).await.unwrap();
    let key = node.key();
    assert!(!node.agent.expand(&key, 64 * MIB).await.unwrap());

    let sandbox = node.sandbox("s2", 2);
    let target = node.create_until(&sandbox, "c2").await;
    assert!(node.agent.expand(&key, 64 * MIB).await.unwrap());
    assert_eq!(node.driver.count("NodeExpandVolume"), 1);
    let found = rustix::fs::statvfs(&target).unwrap();
    assert!(found.f_blocks * found.f_frsize > 40 * MIB);
    // A no that is final is not repeated by itself.
    let refusal = Fault::fail(tonic::Code::FailedPrecondition);
    node.driver.fault("NodeExpandVolume", refusal);
    let refused = node.agent.expand(&key, 65 * MIB).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    let before = node.driver.count("NodeExpandVolume");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.driver.count("NodeExpandVolume"), before);
    node.end("s2", "c2");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn usage_is_told_and_a_driver_that_hangs_over_it_hangs_nothing() {
    let setup = Setup {
        stats_interval: Duration::from_millis(300),
        ..Setup::default()
    };
    let node = Node::over(Over::Bind, setup, |o| {
        o.stats = true;
        o.condition = true;
    })
    .await;
    let key = node.key();
    assert_eq!(node.agent.stats(&key).await.unwrap(), None);
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    let told = node.agent.stats(&key).await.unwrap().unwrap();
    assert!(told.bytes.unwrap().total > 0 && told.inodes.unwrap().used > 0);
    node.driver
        .set_abnormal(&node.volume.volume_id, Some("a disk is failing"));
    let of = "{namespace=\"agents\",actor=\"a\",volume=\"vol1\"";
    let abnormal = format!("actor_volumes_volume_abnormal{of}}}");
    node.until("the condition is told", async || {
        node.metric(&abnormal) == Some(1)
    })
    .await;
    let used = format!("actor_volumes_volume_bytes{of},kind=\"used\"}}");
    assert!(node.metric(&used) > Some(0));

    node.driver.fault("NodeGetVolumeStats", Fault::hang());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    // The last answer stands in.
    let told = node.agent.stats(&key).await.unwrap().unwrap();
    assert!(told.condition.unwrap().abnormal);
    assert!(begun.elapsed() < Duration::from_secs(4));
    node.create(&sandbox, "c2").await.unwrap();
    node.driver.clear_faults();
    node.end("s1", "c1");
    node.until_released().await;
    assert_eq!(node.metric(&used), None);
    node.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn while_the_control_plane_wants_quiet_no_call_is_or_gets_under_way() {
    let node = Node::start().await;
    let key = node.key();
    node.driver
        .fault("NodeStageVolume", Fault::delay(Duration::from_secs(1)));
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    node.until("staging is under way", async || {
        node.driver.count("NodeStageVolume") == 1
    })
    .await;
    let minute = Duration::from_secs(60);
    node.agent.quiet(&key, minute).await.unwrap();
    let calls = node.driver.calls();
    let stage = calls.iter().find(|c| c.method == "NodeStageVolume");
    assert!(stage.unwrap().code.is_some(), "staging is still under way");

    let refused = node.create(&sandbox, "c1").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert_eq!(node.driver.count("NodePublishVolume"), 0);
    node.agent.unquiet(&key).await;
    node.create_until(&sandbox, "c1").await;
    // Quiet ends by itself, too.
    let moment = Duration::from_millis(500);
    node.agent.quiet(&key, moment).await.unwrap();
    node.end("s1", "c1");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn secrets_go_to_the_calls_that_they_are_for_and_into_no_record() {
    let secret = ("password".to_owned(), "correct-horse".to_owned());
    let mut setup = Setup::default();
    let reference = "storage/creds".parse().unwrap();
    setup.secret_refs.insert(SecretUse::NodeStage, reference);
    let expected = [secret.clone()].into();
    let node = Node::over(Over::Bind, setup, |o| o.secrets.node_stage = expected).await;
    let sandbox = node.sandbox("s1", 1);
    // It is not there yet: nothing is begun, and it is said.
    let refused = node.create(&sandbox, "c1").await.unwrap_err();
    let text = refused.full_message();
    assert!(text.contains("storage/creds"), "{text}");
    assert_eq!(node.driver.count("NodeStageVolume"), 0);

    let directory = node.dir.path().join("secrets/storage/creds");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(&secret.0);
    fs::write(&file, &secret.1).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    node.create_until(&sandbox, "c1").await;
    let records = node.records();
    assert!(records.contains("storage/creds") && !records.contains(&secret.1));
    node.end("s1", "c1");
    node.finish().await;
}
