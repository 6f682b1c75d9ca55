// SPDX-License-Identifier: Apache-2.0
//! A driver whose mounts this process would not see.

use std::{
    fs,
    process::{Child, Command},
};

use testkit::csi::fuse_server;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// A driver in a mount namespace that shares nothing with ours.
struct Hidden(Child);

impl Hidden {
    fn start(node: &Node) -> Self {
        let dir = node.dir.path();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(fuse_server())
            .args(["--root".as_ref(), dir.join("backend").as_os_str()])
            .args(["--socket".as_ref(), dir.join("csi.sock").as_os_str()])
            .args(["--log".as_ref(), dir.join("calls").as_os_str()])
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn of_a_driver_whose_mounts_are_not_seen_nothing_is_believed() {
    const WHY: &str = "mountPropagation Bidirectional";
    let mut node = Node::start().await;
    let pod = node.sandbox("s1", 1);
    let source = node.create_until(&pod, "c1").await;
    fs::write(source.join("f"), "kept").unwrap();
    node.runs("s1", "c1", true);

    node.driver.stop().await;
    let hidden = Hidden::start(&node);
    node.shutdown.cancel();
    node.shutdown = CancellationToken::new();
    let socket = node.dir.path().join("csi.sock");
    node.until("the other driver answers", async || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    })
    .await;
    node.agent = Node::agent(node.dir.path(), &node.setup, &node.shutdown)
        .await
        .0;
    node.end("s1", "c1");
    let refused = async || {
        let held = node.agent.held(&node.key()).await.unwrap();
        held.contains(WHY) && held.contains("the node agent would not see")
    };
    node.until("the release says why it waits", refused).await;
    let next = node.sandbox("s2", 2);
    let error = node.create(&next, "c2").await.unwrap_err();
    assert!(error.full_message().contains(WHY), "{error:?}");
    // It was not even asked.
    let calls = fs::read_to_string(node.dir.path().join("calls")).unwrap();
    assert!(!calls.contains("NodeUnpublishVolume"), "{calls}");
    assert_eq!(fs::read_to_string(source.join("f")).unwrap(), "kept");

    drop(hidden);
    node.driver.start_again().await;
    let target = node.create_until(&next, "c2").await;
    assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "kept");
    assert!(!source.exists());
    node.end("s2", "c2");
    node.finish().await;
}
