// SPDX-License-Identifier: Apache-2.0
//! A driver, and a caller who does everything right, unless told otherwise.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use actor_volumes::{
    proto::csi::{
        self as wire, VolumeCapability, controller_client::ControllerClient,
        identity_client::IdentityClient, node_client::NodeClient, volume_capability as capability,
        volume_capability::access_mode::Mode,
    },
    transport,
};
use actor_volumes_testkit::csi::{Backend, Cleanup, CsiDriver, Options};
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

pub(crate) const MIB: i64 = 1 << 20;

pub(crate) type Done<T = ()> = Result<T, Status>;
pub(crate) type Map = HashMap<String, String>;

pub(crate) struct Bench {
    // Before the directory, in which it looks for what was left.
    _cleanup: Cleanup,
    pub(crate) driver: CsiDriver,
    pub(crate) caller: Caller,
    _dir: TempDir,
}

/// Of one node, and of the controller.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) identity: IdentityClient<Channel>,
    pub(crate) controller: ControllerClient<Channel>,
    pub(crate) node: NodeClient<Channel>,
    dir: PathBuf,
    pub(crate) id: String,
    pub(crate) volume_context: Map,
    pub(crate) publish_context: Map,
    pub(crate) capability: VolumeCapability,
    pub(crate) node_id: String,
    /// Whether a staging path is told.
    pub(crate) stages: bool,
}

pub(crate) fn mount(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(capability::AccessMode { mode: mode.into() }),
        access_type: Some(capability::AccessType::Mount(
            capability::MountVolume::default(),
        )),
    }
}

pub(crate) fn block() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(capability::AccessType::Block(capability::BlockVolume {})),
        ..mount(Mode::SingleNodeWriter)
    }
}

pub(crate) fn size(required_bytes: i64) -> Option<wire::CapacityRange> {
    Some(wire::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    })
}

pub(crate) fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Bench {
    pub(crate) async fn new(change: impl FnOnce(&mut Options)) -> Self {
        Self::over(|_| Backend::Memory, change).await
    }

    pub(crate) async fn over(
        backend: impl FnOnce(PathBuf) -> Backend,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(backend(dir.path().join("backend")));
        change(&mut options);
        let cleanup = Cleanup::new(&options.backend);
        let stages = options.stage;
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
        let mut caller = Caller::new(dir.path(), driver.socket(), driver.socket(), "node-a").await;
        caller.stages = stages;
        Self {
            driver,
            caller,
            _cleanup: cleanup,
            _dir: dir,
        }
    }

    #[track_caller]
    pub(crate) fn assert_no_rule_broken(&self) {
        assert_eq!(self.driver.violations(), [""; 0]);
    }
}

impl Caller {
    pub(crate) async fn new(dir: &Path, controller: &Path, node: &Path, id: &str) -> Self {
        let within = Duration::from_secs(5);
        let controller = transport::connect(controller, within).await.unwrap();
        let node = transport::connect(node, within).await.unwrap();
        let work = dir.join(id);
        std::fs::create_dir_all(work.join("staging")).unwrap();
        Self {
            identity: IdentityClient::new(controller.clone()),
            controller: ControllerClient::new(controller),
            node: NodeClient::new(node),
            dir: work,
            id: String::new(),
            volume_context: Map::new(),
            publish_context: Map::new(),
            capability: mount(Mode::SingleNodeWriter),
            node_id: id.into(),
            stages: true,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }

    pub(crate) fn creation(&self) -> wire::CreateVolumeRequest {
        wire::CreateVolumeRequest {
            name: "av-1".into(),
            capacity_range: size(32 * MIB),
            volume_capabilities: vec![self.capability.clone()],
            ..Default::default()
        }
    }

    pub(crate) async fn create(&mut self) -> Done<wire::Volume> {
        let request = self.creation();
        self.create_as(request).await
    }

    pub(crate) async fn create_as(
        &mut self,
        request: wire::CreateVolumeRequest,
    ) -> Done<wire::Volume> {
        let answer = self.controller.create_volume(request).await?;
        let volume = answer.into_inner().volume.unwrap();
        self.id.clone_from(&volume.volume_id);
        self.volume_context.clone_from(&volume.volume_context);
        Ok(volume)
    }

    pub(crate) async fn delete(&mut self) -> Done {
        let request = wire::DeleteVolumeRequest {
            volume_id: self.id.clone(),
            ..Default::default()
        };
        self.controller.delete_volume(request).await.map(drop)
    }

    pub(crate) async fn attach(&mut self) -> Done<Map> {
        let request = wire::ControllerPublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: self.node_id.clone(),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            ..Default::default()
        };
        let answer = self.controller.controller_publish_volume(request).await?;
        self.publish_context = answer.into_inner().publish_context;
        Ok(self.publish_context.clone())
    }

    pub(crate) async fn detach(&mut self) -> Done {
        let request = wire::ControllerUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: self.node_id.clone(),
            ..Default::default()
        };
        let controller = &mut self.controller;
        controller
            .controller_unpublish_volume(request)
            .await
            .map(drop)
    }

    pub(crate) async fn stage(&mut self) -> Done {
        let request = wire::NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: self.text("staging"),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            ..Default::default()
        };
        self.node.node_stage_volume(request).await.map(drop)
    }

    pub(crate) async fn unstage(&mut self) -> Done {
        let request = wire::NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.text("staging"),
        };
        self.node.node_unstage_volume(request).await.map(drop)
    }

    pub(crate) async fn publish(&mut self) -> Done {
        let staging = self.stages.then(|| self.text("staging"));
        let request = wire::NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: staging.unwrap_or_default(),
            target_path: self.text("target"),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            ..Default::default()
        };
        self.node.node_publish_volume(request).await.map(drop)
    }

    pub(crate) async fn unpublish(&mut self) -> Done {
        let request = wire::NodeUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: self.text("target"),
        };
        self.node.node_unpublish_volume(request).await.map(drop)
    }

    pub(crate) async fn expand(&mut self, to: i64) -> Done<wire::ControllerExpandVolumeResponse> {
        let request = wire::ControllerExpandVolumeRequest {
            volume_id: self.id.clone(),
            capacity_range: size(to),
            ..Default::default()
        };
        let answer = self.controller.controller_expand_volume(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn node_expand(&mut self, to: i64) -> Done<i64> {
        let request = wire::NodeExpandVolumeRequest {
            volume_id: self.id.clone(),
            volume_path: self.text("target"),
            capacity_range: size(to),
            staging_target_path: self.text("staging"),
            ..Default::default()
        };
        let answer = self.node.node_expand_volume(request).await?;
        Ok(answer.into_inner().capacity_bytes)
    }

    pub(crate) async fn stats(&mut self) -> Done<wire::NodeGetVolumeStatsResponse> {
        let request = wire::NodeGetVolumeStatsRequest {
            volume_id: self.id.clone(),
            volume_path: self.text("target"),
            ..Default::default()
        };
        let answer = self.node.node_get_volume_stats(request).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn list(&mut self, most: i32, token: &str) -> Done<wire::ListVolumesResponse> {
        let request = wire::ListVolumesRequest {
            max_entries: most,
            starting_token: token.into(),
        };
        Ok(self.controller.list_volumes(request).await?.into_inner())
    }

    /// All the way to a published volume; without attaching.
    pub(crate) async fn up(&mut self) {
        self.create().await.unwrap();
        if self.stages {
            self.stage().await.unwrap();
        }
        self.publish().await.unwrap();
    }

    /// All the way back.
    pub(crate) async fn down(&mut self) {
        self.unpublish().await.unwrap();
        if self.stages {
            self.unstage().await.unwrap();
        }
        self.delete().await.unwrap();
    }
}
