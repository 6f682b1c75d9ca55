// SPDX-License-Identifier: Apache-2.0
//! The embedded driver, with real mounts, through the CSI client.

#![allow(clippy::unwrap_used)] // the whole file is a test

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actor_volumes::{
    csi::{
        Accessibility, CallError, ControllerExpand, CreateVolume, DeleteVolume, Driver,
        DriverConfig, NodePublish, NodeStage, NodeStats, Registry, VolumeCapability,
    },
    error::Kind,
    host::mount::{bindings, is_mount_point, unmount},
    local_driver::{self, DEFAULT_NAME, Options},
    model::{AccessMode, DriverName, VolumeMode},
    secret::Secrets,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Bench {
    dir: tempfile::TempDir,
    client: Arc<Driver>,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name: DriverName = DEFAULT_NAME.parse().unwrap();
        let config = DriverConfig::unix(
            name.clone(),
            dir.path().join("csi.sock"),
            Duration::from_secs(5),
        );
        let mut bench = Self {
            client: Registry::new(vec![config]).get(&name).unwrap(),
            dir,
            stop: CancellationToken::new(),
            server: None,
        };
        bench.serve();
        bench
    }

    fn serve(&mut self) {
        self.stop = CancellationToken::new();
        let options = Options {
            socket: self.dir.path().join("csi.sock"),
            root: self.dir.path().join("root"),
            name: DEFAULT_NAME.into(),
            node_id: "node-a".into(),
        };
        let serving = local_driver::serve(options, self.stop.clone());
        self.server = Some(tokio::spawn(async { serving.await.unwrap() }));
    }

    /// Ends the driver and starts another one on the same root.
    async fn restart(&mut self) {
        self.stop.cancel();
        self.server.take().unwrap().await.unwrap();
        assert!(!self.dir.path().join("csi.sock").exists());
        self.serve();
        self.wait().await;
    }

    async fn wait(&self) {
        while !self.client.status().await.ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn data(&self, id: &str) -> PathBuf {
        self.path("root/volumes").join(id).join("data")
    }

    async fn create(&self, name: &str) -> String {
        let request = CreateVolume {
            name: name.into(),
            required_bytes: 1 << 20,
            capability: capability(AccessMode::SingleNodeSingleWriter),
            parameters: BTreeMap::new(),
            accessibility: Accessibility::default(),
            secrets: Secrets::default(),
        };
        self.client.create_volume(&request).await.unwrap().volume_id
    }

    fn stage(&self, id: &str) -> NodeStage {
        let staging_path = self.path("staging");
        fs::create_dir_all(&staging_path).unwrap();
        NodeStage {
            volume_id: id.into(),
            publish_context: BTreeMap::new(),
            staging_path,
            capability: capability(AccessMode::SingleNodeSingleWriter),
            volume_context: BTreeMap::new(),
            secrets: Secrets::default(),
        }
    }

    fn publish(&self, id: &str, target: &str) -> NodePublish {
        NodePublish {
            volume_id: id.into(),
            publish_context: BTreeMap::new(),
            staging_path: self.path("staging"),
            target_path: self.path(target),
            capability: capability(AccessMode::SingleNodeSingleWriter),
            read_only: false,
            volume_context: BTreeMap::new(),
            secrets: Secrets::default(),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that failed must not leave mounts behind.
        let volumes = fs::read_dir(self.path("root/volumes")).unwrap();
        for volume in volumes.flatten() {
            let shown = bindings(&volume.path().join("data")).unwrap_or_default();
            for binding in shown.iter().rev() {
                let _ = unmount(&binding.target);
            }
        }
    }
}

fn capability(access_mode: AccessMode) -> VolumeCapability {
    VolumeCapability {
        access_mode,
        volume_mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        mount_flags: Vec::new(),
        mount_group: String::new(),
    }
}

#[track_caller]
fn refused<T>(result: Result<T, CallError>, kind: Kind, text: &str) {
    let error = result.err().expect("the call fails");
    assert_eq!(error.error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

fn mounts(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let field = |line: &str| line.split(' ').nth(4) == path.to_str();
    table.lines().filter(|line| field(line)).count()
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn data_is_kept_from_one_publication_to_the_next_and_ends_with_the_volume() {
    let bench = Bench::new();
    bench.wait().await;
    let client = &bench.client;
    let id = bench.create("a").await;
    let (stage, publish) = (bench.stage(&id), bench.publish(&id, "target"));
    for round in 0..2 {
        // Repeated calls never stack a second mount.
        for _ in 0..2 {
            client.node_stage(&stage).await.unwrap();
            client.node_publish(&publish).await.unwrap();
        }
        assert_eq!(mounts(&stage.staging_path), 1);
        assert_eq!(mounts(&publish.target_path), 1);
        let file = publish.target_path.join("f");
        if round == 0 {
            fs::write(&file, "kept").unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let refusal = client.delete_volume(&deletion(&id)).await;
        refused(refusal, Kind::FailedPrecondition, "still mounted");
        let refusal = client.node_unstage(&id, &stage.staging_path).await;
        refused(refusal, Kind::FailedPrecondition, "still published");
        for _ in 0..2 {
            client
                .node_unpublish(&id, &publish.target_path)
                .await
                .unwrap();
        }
        assert!(!publish.target_path.exists());
        let refusal = client.delete_volume(&deletion(&id)).await;
        refused(refusal, Kind::FailedPrecondition, "still mounted");
        for _ in 0..2 {
            client.node_unstage(&id, &stage.staging_path).await.unwrap();
        }
        // The staging directory is the CO's.
        assert!(stage.staging_path.is_dir());
        assert!(!is_mount_point(&stage.staging_path).unwrap());
    }
    client.delete_volume(&deletion(&id)).await.unwrap();
    client.delete_volume(&deletion(&id)).await.unwrap();
    let left = |name| fs::read_dir(bench.path(name)).unwrap().count();
    assert_eq!((left("root/volumes"), left("root/trash")), (0, 0));
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_volume_grows_and_tells_what_is_used() {
    let bench = Bench::new();
    bench.wait().await;
    let client = &bench.client;
    let id = bench.create("a").await;
    let expand = |required_bytes| ControllerExpand {
        volume_id: id.clone(),
        required_bytes,
        capability: capability(AccessMode::SingleNodeSingleWriter),
        secrets: Secrets::default(),
    };
    let grown = client.controller_expand(&expand(3 << 20)).await.unwrap();
    assert_eq!(grown.capacity_bytes, 3 << 20);
    assert!(!grown.node_expansion_required);
    // It never shrinks, and a repeated CreateVolume finds it as it is.
    let grown = client.controller_expand(&expand(2 << 20)).await.unwrap();
    assert_eq!(grown.capacity_bytes, 3 << 20);
    assert_eq!(bench.create("a").await, id);

    let (stage, publish) = (bench.stage(&id), bench.publish(&id, "target"));
    let stats = NodeStats {
        volume_id: id.clone(),
        volume_path: publish.target_path.clone(),
        staging_path: stage.staging_path.clone(),
    };
    refused(
        client.node_stats(&stats).await,
        Kind::NotFound,
        "not mounted",
    );
    client.node_stage(&stage).await.unwrap();
    client.node_publish(&publish).await.unwrap();
    let told = client.node_stats(&stats).await.unwrap().unwrap();
    let (bytes, inodes) = (told.bytes.unwrap(), told.inodes.unwrap());
    assert!(bytes.total >= bytes.used + bytes.available && bytes.available > 0);
    assert!(inodes.total > 0 || inodes.used == 0);
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_new_volume_is_an_empty_directory_that_root_may_write() {
    let bench = Bench::new();
    bench.wait().await;
    let id = bench.create("a").await;
    let mode = fs::metadata(bench.data(&id)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fs::read_dir(bench.data(&id)).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_read_only_publication_refuses_writes_and_another_way_is_refused() {
    let bench = Bench::new();
    bench.wait().await;
    let client = &bench.client;
    let id = bench.create("a").await;
    client.node_stage(&bench.stage(&id)).await.unwrap();
    let publish = NodePublish {
        read_only: true,
        ..bench.publish(&id, "target")
    };
    client.node_publish(&publish).await.unwrap();
    let written = fs::write(publish.target_path.join("f"), "x").unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let writable = bench.publish(&id, "target");
    let result = client.node_publish(&writable).await;
    refused(result, Kind::AlreadyExists, "readonly true");
    let other_mode = NodePublish {
        capability: capability(AccessMode::SingleNodeWriter),
        ..publish.clone()
    };
    let result = client.node_publish(&other_mode).await;
    refused(result, Kind::AlreadyExists, "SINGLE_NODE_WRITER");
    let elsewhere = bench.publish(&id, "other");
    let result = client.node_publish(&elsewhere).await;
    refused(result, Kind::FailedPrecondition, "allows one place");
    assert!(!elsewhere.target_path.exists());
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn many_writers_of_one_node_share_a_volume() {
    let bench = Bench::new();
    bench.wait().await;
    let client = &bench.client;
    let id = bench.create("a").await;
    client.node_stage(&bench.stage(&id)).await.unwrap();
    let shared = |target| NodePublish {
        capability: capability(AccessMode::SingleNodeMultiWriter),
        ..bench.publish(&id, target)
    };
    client.node_publish(&shared("one")).await.unwrap();
    client.node_publish(&shared("two")).await.unwrap();
    fs::write(bench.path("one/f"), "x").unwrap();
    assert!(bench.path("two/f").exists());
    let alone = client.node_publish(&bench.publish(&id, "three")).await;
    refused(alone, Kind::FailedPrecondition, "allows one place");
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_driver_that_was_started_again_knows_what_is_mounted() {
    let mut bench = Bench::new();
    bench.wait().await;
    let id = bench.create("a").await;
    let (stage, publish) = (bench.stage(&id), bench.publish(&id, "target"));
    bench.client.node_stage(&stage).await.unwrap();
    bench.client.node_publish(&publish).await.unwrap();
    fs::write(publish.target_path.join("f"), "x").unwrap();
    bench.restart().await;
    let client = &bench.client;
    assert_eq!(bench.create("a").await, id);
    client.node_stage(&stage).await.unwrap();
    client.node_publish(&publish).await.unwrap();
    assert_eq!(mounts(&publish.target_path), 1);
    let other = NodePublish {
        capability: capability(AccessMode::SingleNodeWriter),
        ..publish.clone()
    };
    let result = client.node_publish(&other).await;
    refused(result, Kind::AlreadyExists, "SINGLE_NODE_SINGLE_WRITER");
    client
        .node_unpublish(&id, &publish.target_path)
        .await
        .unwrap();
    client.node_unstage(&id, &stage.staging_path).await.unwrap();
    client.delete_volume(&deletion(&id)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn a_mount_or_a_file_of_someone_else_is_left_alone() {
    let bench = Bench::new();
    bench.wait().await;
    let client = &bench.client;
    let (a, b) = (bench.create("a").await, bench.create("b").await);
    let (stage, publish) = (bench.stage(&a), bench.publish(&a, "target"));
    client.node_stage(&stage).await.unwrap();
    client.node_publish(&publish).await.unwrap();
    // Volume b has nothing there.
    let result = client.node_stage(&bench.stage(&b)).await;
    refused(result, Kind::FailedPrecondition, "something else");
    let result = client.node_unpublish(&b, &publish.target_path).await;
    refused(result, Kind::FailedPrecondition, "something else");
    let result = client.node_unstage(&b, &stage.staging_path).await;
    refused(result, Kind::FailedPrecondition, "something else");
    assert!(is_mount_point(&publish.target_path).unwrap());
    // A target that holds files would hide them.
    client
        .node_unpublish(&a, &publish.target_path)
        .await
        .unwrap();
    fs::create_dir(&publish.target_path).unwrap();
    fs::write(publish.target_path.join("mine"), "x").unwrap();
    let result = client.node_publish(&publish).await;
    refused(result, Kind::FailedPrecondition, "would hide");
    let result = client.node_unpublish(&a, &publish.target_path).await;
    result.unwrap_err();
    assert!(publish.target_path.join("mine").exists());
}

#[tokio::test]
#[ignore = "needs root: run by make test"]
async fn nothing_is_published_that_is_not_staged() {
    let bench = Bench::new();
    bench.wait().await;
    let id = bench.create("a").await;
    bench.stage(&id);
    let publish = bench.publish(&id, "target");
    let result = bench.client.node_publish(&publish).await;
    refused(result, Kind::FailedPrecondition, "not staged");
    assert!(!publish.target_path.exists());
    let unknown = bench.stage("local-unknown");
    let result = bench.client.node_stage(&unknown).await;
    refused(result, Kind::NotFound, "does not exist");
}

fn deletion(volume_id: &str) -> DeleteVolume {
    DeleteVolume {
        volume_id: volume_id.into(),
        secrets: Secrets::default(),
    }
}
