// SPDX-License-Identifier: Apache-2.0
//! One controller and several nodes over one backend.

use actor_volumes::proto::csi as wire;
use actor_volumes_testkit::csi::{Backend, CsiDriver, Fault, Options};
use tonic::Code;

use crate::bench::Caller;

struct Cluster {
    driver: CsiDriver,
    a: Caller,
    b: Caller,
    _dir: tempfile::TempDir,
}

async fn cluster(change: impl FnOnce(&mut Options)) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(Backend::Memory);
    options.attach = true;
    change(&mut options);
    let driver = CsiDriver::start_cluster(dir.path(), options, &["node-a", "node-b"]).await;
    let (here, controller) = (dir.path(), driver.socket());
    let a = Caller::new(here, controller, driver.node_socket("node-a"), "node-a").await;
    let b = Caller::new(here, controller, driver.node_socket("node-b"), "node-b").await;
    Cluster {
        driver,
        a,
        b,
        _dir: dir,
    }
}

impl Cluster {
    /// Both callers know the volume.
    async fn created(&mut self) {
        self.a.create().await.unwrap();
        self.b.id.clone_from(&self.a.id);
        self.b.volume_context.clone_from(&self.a.volume_context);
    }
}

#[tokio::test]
async fn each_socket_has_its_services_and_its_node_id() {
    let mut cluster = cluster(|_| {}).await;
    for (caller, id) in [(&mut cluster.a, "node-a"), (&mut cluster.b, "node-b")] {
        let info = caller.node.node_get_info(wire::NodeGetInfoRequest {}).await;
        assert_eq!(info.unwrap().into_inner().node_id, id);
    }
    let (controller, node) = (
        cluster.driver.socket(),
        cluster.driver.node_socket("node-a"),
    );
    let dir = tempfile::tempdir().unwrap();
    let mut crossed = Caller::new(dir.path(), node, controller, "x").await;
    assert_eq!(
        crossed.create().await.err().unwrap().code(),
        Code::Unimplemented
    );
    let info = crossed
        .node
        .node_get_info(wire::NodeGetInfoRequest {})
        .await;
    assert_eq!(info.err().unwrap().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_volume_is_at_one_node_with_the_context_of_that_node() {
    let mut cluster = cluster(|_| {}).await;
    cluster.created().await;
    let context = cluster.a.attach().await.unwrap();
    cluster.a.stage().await.unwrap();
    cluster.a.publish().await.unwrap();
    assert_eq!(cluster.driver.attached(&cluster.a.id), ["node-a"]);
    cluster.b.attach().await.err().unwrap();
    cluster.b.publish_context = context.clone();
    cluster.b.stage().await.err().unwrap();
    let says = |n: usize, text: &str| {
        let broken = cluster.driver.violations();
        assert!(
            broken.len() == n && broken[n - 1].contains(text),
            "{broken:?}"
        );
    };
    says(2, "not attached to this node");
    assert!(cluster.driver.violations()[0].contains("still attached to"));
    cluster.a.unpublish().await.unwrap();
    cluster.a.unstage().await.unwrap();
    cluster.a.detach().await.unwrap();
    cluster.b.attach().await.unwrap();
    let right = std::mem::replace(&mut cluster.b.publish_context, context);
    cluster.b.stage().await.err().unwrap();
    says(3, "another publish_context");
    cluster.b.publish_context = right;
    cluster.b.stage().await.unwrap();
    let nodes = cluster.driver.calls().into_iter();
    let nodes: Vec<_> = nodes.filter(|c| c.method == "NodePublishVolume").collect();
    assert_eq!(nodes[0].node, "node-a");
}

#[tokio::test]
async fn an_unknown_node_is_not_found() {
    let mut cluster = cluster(|_| {}).await;
    cluster.created().await;
    cluster.a.node_id = "node-x".into();
    assert_eq!(
        cluster.a.attach().await.err().unwrap().code(),
        Code::NotFound
    );
    assert!(cluster.driver.violations().is_empty());
}

#[tokio::test]
async fn one_call_for_a_volume_holds_across_all_sockets_unless_told_otherwise() {
    for across in [false, true] {
        let mut cluster = cluster(|o| {
            o.overlap_across_nodes = across;
        })
        .await;
        cluster.created().await;
        let delay = Fault::delay(std::time::Duration::from_millis(200));
        cluster.driver.fault("NodeUnpublishVolume", delay);
        let (a, b) = tokio::join!(cluster.a.unpublish(), cluster.b.unpublish());
        a.unwrap();
        b.unwrap();
        let broken = cluster.driver.violations();
        assert_eq!(broken.len(), usize::from(!across), "{broken:?}");
    }
}

#[tokio::test]
async fn a_node_may_be_away_while_all_others_serve() {
    let mut cluster = cluster(|_| {}).await;
    cluster.created().await;
    cluster.a.attach().await.unwrap();
    cluster.a.stage().await.unwrap();
    cluster.driver.stop_node("node-a").await;
    assert!(cluster.a.publish().await.is_err());
    // Once it is known to be dead, the volume may go elsewhere.
    cluster.driver.fence("node-a");
    cluster.a.detach().await.unwrap();
    cluster.b.attach().await.unwrap();
    cluster.b.stage().await.unwrap();
    cluster.driver.start_node("node-a").await;
    let info = cluster
        .a
        .node
        .node_get_info(wire::NodeGetInfoRequest {})
        .await;
    info.unwrap();
    assert!(cluster.driver.violations().is_empty());
}
