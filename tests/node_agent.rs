// SPDX-License-Identifier: Apache-2.0
//! The node agent over real mounts, a real CSI driver double and a real listing.

#![allow(clippy::unwrap_used)] // the whole file is a test

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    api::annotation,
    cri::Cri,
    csi::{CreateVolume, DriverConfig, Registry, VolumeCapability},
    delivery::Needs,
    error::{Kind, Result},
    model::{
        AccessMode, ActorUid, Audience, ContainerView, Generation, Grant, GrantActor, GrantMount,
        GrantVolume, SandboxView, VolumeKey, VolumeMode, VolumeUid,
    },
    node::{Agent, Authority, Layout, NodeSettings, Ports},
    secret::Vault,
    telemetry::Metrics,
};
use testkit::{
    csi::{Backend, CsiDriver, Fault},
    runtime::ListedRuntime,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// Believes every grant: whether one is current is the control plane's word.
struct Believing;

impl Authority for Believing {
    fn current(&self, presented: &Grant) -> Result<Grant> {
        Ok(presented.clone())
    }
}

struct Node {
    driver: CsiDriver,
    runtime: ListedRuntime,
    agent: Arc<Agent>,
    shutdown: CancellationToken,
    volume: GrantVolume,
    dir: tempfile::TempDir,
}

const SOON: Duration = Duration::from_secs(10);

impl Node {
    async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let root = dir.path().join("backend");
        let socket = dir.path().join("csi.sock");
        let driver = CsiDriver::start(&socket, Backend::Bind { root }).await;
        let runtime = ListedRuntime::start(&dir.path().join("cri.sock")).await;
        let shutdown = CancellationToken::new();
        let (agent, volume) = Self::agent(dir.path(), &shutdown).await;
        Self {
            driver,
            runtime,
            agent,
            shutdown,
            volume,
            dir,
        }
    }

    async fn agent(dir: &Path, shutdown: &CancellationToken) -> (Arc<Agent>, GrantVolume) {
        let name = "testkit.actor-volumes.dev".parse().unwrap();
        let drivers = Arc::new(Registry::new(vec![DriverConfig::unix(
            name,
            dir.join("csi.sock"),
            Duration::from_secs(5),
        )]));
        let created = drivers.list()[0]
            .create_volume(&CreateVolume {
                name: "av-1".into(),
                required_bytes: 1 << 20,
                capability: VolumeCapability {
                    access_mode: AccessMode::SingleNodeSingleWriter,
                    volume_mode: VolumeMode::Filesystem,
                    fs_type: String::new(),
                    mount_flags: Vec::new(),
                    mount_group: String::new(),
                },
                parameters: Default::default(),
                accessibility: Default::default(),
                secrets: Default::default(),
            })
            .await
            .unwrap();
        let volume = GrantVolume {
            name: "vol1".parse().unwrap(),
            uid: VolumeUid::new("v-1").unwrap(),
            generation: Generation(1),
            driver: "testkit.actor-volumes.dev".parse().unwrap(),
            volume_id: created.volume_id,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            access_mode: AccessMode::SingleNodeSingleWriter,
            mount_flags: Vec::new(),
            mount_group: String::new(),
            secret_refs: Default::default(),
            volume_context: created.volume_context,
            publish_context: Default::default(),
        };
        let settings = NodeSettings {
            name: "node-a".parse().unwrap(),
            layout: Layout::new(&dir.join("state"), &dir.join("m")),
            trusted_namespaces: vec!["agents".parse().unwrap()],
            max_wait: Duration::from_millis(1_500),
            wait_percent: 100,
            member_grace: Duration::from_millis(200),
            sweep_interval: Duration::from_millis(200),
            stats_interval: Duration::ZERO,
            probe_interval: Duration::ZERO,
            helper: env!("CARGO_BIN_EXE_actor-volumes").into(),
        };
        let ports = Ports {
            drivers,
            cri: Cri::new(dir.join("cri.sock"), Duration::from_secs(5)),
            authority: Arc::new(Believing),
            vault: Vault::default(),
            metrics: Arc::new(Metrics::default()),
        };
        let agent = Agent::start(settings, ports, shutdown.clone()).unwrap();
        (agent, volume)
    }

    fn grant(&self, generation: u64) -> Grant {
        let mut volume = self.volume.clone();
        volume.generation = Generation(generation);
        Grant {
            version: 1,
            actor: GrantActor {
                namespace: "agents".parse().unwrap(),
                name: "a".parse().unwrap(),
                uid: ActorUid::new("a-1").unwrap(),
            },
            node: "node-a".parse().unwrap(),
            audience: Audience::Pod {
                namespace: "agents".parse().unwrap(),
                pod: None,
            },
            volumes: vec![volume],
            mounts: vec![GrantMount {
                container: None,
                volume: "vol1".parse().unwrap(),
                mount_path: "/my-data".into(),
                read_only: false,
                sub_path: String::new(),
            }],
            devices: Vec::new(),
        }
    }

    /// A sandbox with this grant, which the runtime lists as ready.
    fn sandbox(&self, id: &str, generation: u64) -> SandboxView {
        self.runtime.set(|lists| {
            lists.sandboxes.insert(id.into(), true);
        });
        SandboxView {
            id: id.into(),
            name: format!("pod-{id}"),
            namespace: "agents".into(),
            uid: id.into(),
            annotations: annotation::write(&self.grant(generation)).unwrap(),
        }
    }

    async fn create(&self, sandbox: &SandboxView, container: &str) -> Result<Needs> {
        let container = ContainerView {
            id: container.into(),
            sandbox: sandbox.id.clone(),
            name: "agent".into(),
            ..ContainerView::default()
        };
        let until = Instant::now() + Duration::from_millis(1_500);
        self.agent
            .container_created(sandbox, &container, until)
            .await
    }

    /// As a kubelet does: until it succeeds.
    async fn create_until(&self, sandbox: &SandboxView, container: &str) -> PathBuf {
        let start = Instant::now();
        loop {
            match self.create(sandbox, container).await {
                Ok(needs) => return needs.mounts[0].source.clone(),
                Err(error) if start.elapsed() > SOON => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn key(&self) -> VolumeKey {
        self.volume.key()
    }

    async fn until_released(&self) {
        let start = Instant::now();
        while let Some(held) = self.agent.held(&self.key()).await {
            assert!(start.elapsed() < SOON, "still held: {held}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the test: everything released, nothing left, no rule broken.
    async fn finish(self) {
        self.until_released().await;
        let root = self.dir.path().join("m");
        assert_eq!(
            std::fs::read_dir(root).unwrap().count(),
            0,
            "directories left"
        );
        assert_eq!(self.driver.violations(), [""; 0]);
        self.shutdown.cancel();
    }
}

/// A process in a mount namespace of its own, with a copy of the mount table.
struct Elsewhere(Child);

impl Elsewhere {
    fn start(script: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("{script} echo ready; exec sleep 1000"))
            .arg("sh")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_sandbox_is_published_at_its_start_and_released_at_its_end() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.agent.sandbox_started(sandbox.clone());
    let target = node.create_until(&sandbox, "c1").await;
    std::fs::write(target.join("f"), "kept").unwrap();
    // A restarted container joins the same publication.
    node.agent.container_gone("s1", "c1");
    assert_eq!(node.create_until(&sandbox, "c2").await, target);
    assert_eq!(node.driver.count("NodePublishVolume"), 1);

    node.agent.container_gone("s1", "c2");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.until_released().await;
    assert!(!target.exists());

    let next = node.sandbox("s2", 2);
    let target = node.create_until(&next, "c3").await;
    assert_eq!(std::fs::read_to_string(target.join("f")).unwrap(), "kept");
    node.agent.container_gone("s2", "c3");
    node.agent.sandbox_over("s2", "its sandbox was removed");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn an_older_or_revoked_generation_is_refused_also_after_a_restart() {
    let mut node = Node::start().await;
    let sandbox = node.sandbox("s1", 2);
    node.create_until(&sandbox, "c1").await;
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.until_released().await;
    node.agent.revoke(&node.key(), Generation(3)).await.unwrap();
    for _ in 0..2 {
        for generation in [1, 2, 3] {
            let late = node.sandbox("s2", generation);
            let refusal = node.create(&late, "c2").await.unwrap_err();
            assert_eq!(refusal.kind(), Kind::FailedPrecondition, "{refusal:?}");
        }
        node.shutdown.cancel();
        node.shutdown = CancellationToken::new();
        node.agent = Node::agent(node.dir.path(), &node.shutdown).await.0;
    }
    let current = node.sandbox("s3", 4);
    node.create_until(&current, "c3").await;
    node.agent.container_gone("s3", "c3");
    node.agent.sandbox_over("s3", "its sandbox was stopped");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_second_sandbox_with_the_same_grant_waits_for_the_first() {
    let node = Node::start().await;
    let first = node.sandbox("s1", 1);
    node.create_until(&first, "c1").await;
    let second = node.sandbox("s2", 1);
    let refusal = node.create(&second, "c2").await.unwrap_err();
    assert_eq!(refusal.kind(), Kind::Unavailable);
    assert!(refusal.full_message().contains("sandbox s1"), "{refusal:?}");
    assert_eq!(node.driver.count("NodePublishVolume"), 1);

    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.create_until(&second, "c3").await;
    node.agent.container_gone("s2", "c3");
    node.agent.sandbox_over("s2", "its sandbox was stopped");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn nothing_is_unpublished_while_a_process_has_the_volume_mounted() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    let target = node.create_until(&sandbox, "c1").await;
    let inside = node.dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    // As a container: the volume at a path of its own.
    let container = Elsewhere::start("mount --bind \"$1\" \"$2\";", &[&target, &inside]);
    // Every event says that it is over.
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.agent.revoke(&node.key(), Generation(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    let held = node.agent.held(&node.key()).await.unwrap();
    assert!(held.contains(&container.0.id().to_string()), "{held}");
    drop(container);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn release_waits_for_a_namespace_that_took_a_copy_of_the_mounts() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    let copy = Elsewhere::start("", &[]);
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = node.agent.held(&node.key()).await;
    assert!(
        held.is_some_and(|h| h.contains("has it at")),
        "it is said to be released"
    );
    drop(copy);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_lost_answer_or_a_failing_driver_is_met_with_the_same_request_again() {
    let node = Node::start().await;
    for method in ["NodeStageVolume", "NodePublishVolume"] {
        node.driver.fault(method, Fault::lose_answer().times(1));
    }
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in ["NodeUnpublishVolume", "NodeUnstageVolume"] {
        node.driver.fault(method, Fault::lose_answer().times(1));
    }
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.finish().await;
}

/// Both teardown calls of a driver that keeps nothing in mind.
const UNDO: [&str; 2] = ["NodeUnpublishVolume", "NodeUnstageVolume"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn not_found_for_a_mount_that_is_gone_is_the_end_of_a_release() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in UNDO {
        node.driver.fault(method, Fault::fail_after(Code::NotFound));
    }
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn not_found_for_a_mount_that_is_there_releases_nothing() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    for method in UNDO {
        node.driver.fault(method, Fault::fail(Code::NotFound));
    }
    node.agent.container_gone("s1", "c1");
    node.agent.sandbox_over("s1", "its sandbox was stopped");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = node.agent.held(&node.key()).await;
    assert!(held.is_some(), "it is said to be released");
    assert_eq!(node.driver.count("NodeUnstageVolume"), 0);
    node.driver.clear_faults();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by make test"]
async fn a_scope_whose_end_no_event_told_is_found_in_two_listings() {
    let node = Node::start().await;
    let sandbox = node.sandbox("s1", 1);
    node.create_until(&sandbox, "c1").await;
    // A runtime that does not answer proves nothing.
    node.runtime.set(|lists| {
        lists.sandboxes.clear();
        lists.down = true;
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.driver.count("NodeUnpublishVolume"), 0);
    node.runtime.set(|lists| lists.down = false);
    node.finish().await;
}
