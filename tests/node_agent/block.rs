// SPDX-License-Identifier: Apache-2.0
//! Raw block volumes, over real loop devices.

use std::{process::Command, time::Duration};

use actor_volumes::model::VolumeMode;

use crate::node::{Node, Over, Setup, shell};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_block_volume_is_shown_as_a_device_and_released_when_nobody_has_it_open() {
    let setup = Setup {
        bytes: 16 << 20,
        volume_mode: VolumeMode::Block,
        ..Setup::default()
    };
    let node = Node::over(Over::Loop, setup, |_| ()).await;
    let sandbox = node.sandbox("s1", 1);
    let needs = node.needs(&sandbox, "c1").await;
    assert_eq!(needs.mounts, []);
    let device = &needs.devices[0];
    assert_eq!((device.path.as_str(), device.major), ("/dev/xvda", 7));
    // As a runtime does.
    let script = format!("mknod xvda b {} {}", device.major, device.minor);
    assert!(shell(node.dir.path(), &script));
    let mut open = Command::new("sh")
        .args([
            "-c",
            "exec 3>xvda; echo 'on the device' >&3; sync xvda; exec sleep 1000",
        ])
        .current_dir(node.dir.path())
        .spawn()
        .unwrap();

    // No mount shows who uses it.
    node.end("s1", "c1");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    let held = node.agent.held(&node.key()).await.unwrap();
    assert!(held.contains("has the device open"), "{held}");
    open.kill().unwrap();
    open.wait().unwrap();
    node.until_released().await;

    let next = node.sandbox("s2", 2);
    let needs = node.needs(&next, "c2").await;
    let device = &needs.devices[0];
    let script = format!(
        "rm xvda; mknod xvda b {} {}; head -c 13 xvda | grep -q 'on the device'",
        device.major, device.minor
    );
    assert!(shell(node.dir.path(), &script), "what was written is gone");
    node.end("s2", "c2");
    node.finish().await;
}
