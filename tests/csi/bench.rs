// SPDX-License-Identifier: Apache-2.0
//! A driver that fails on demand, and a client of it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use actor_volumes::{
    csi::{
        Accessibility, CallError, ControllerUnpublish, CreateVolume, CreatedVolume, DeleteVolume,
        Driver, DriverConfig, NodePublish, NodeStage, Outcome, Registry, VolumeCapability,
    },
    error::Kind,
    model::{AccessMode, DriverName, VolumeMode},
    secret::Secrets,
};
use testkit::csi::{Backend, CsiDriver, Options};

pub(crate) const NAME: &str = "testkit.actor-volumes.dev";

/// A driver, a client of it, and a directory for both.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: CsiDriver,
    pub(crate) client: Arc<Driver>,
}

impl Bench {
    pub(crate) async fn new(change: impl FnOnce(&mut Options)) -> Self {
        Self::with_timeout(Duration::from_secs(5), change).await
    }

    pub(crate) async fn with_timeout(
        call_timeout: Duration,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("csi.sock");
        let mut options = Options::new(Backend::Memory);
        change(&mut options);
        let server = CsiDriver::start_with(&socket, options).await;
        let client = client(NAME, socket, call_timeout);
        Self {
            dir,
            server,
            client,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn create(&self) -> Result<CreatedVolume, CallError> {
        self.client.create_volume(&create()).await
    }

    pub(crate) fn stage(&self, volume: &CreatedVolume, publish_context: &Context) -> NodeStage {
        let staging_path = self.path("staging");
        std::fs::create_dir_all(&staging_path).unwrap();
        NodeStage {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_path,
            capability: capability(),
            volume_context: volume.volume_context.clone(),
            secrets: Secrets::default(),
        }
    }

    pub(crate) fn publish(&self, volume: &CreatedVolume, publish_context: &Context) -> NodePublish {
        NodePublish {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_path: self.path("staging"),
            target_path: self.path("target"),
            capability: capability(),
            read_only: false,
            volume_context: volume.volume_context.clone(),
            secrets: Secrets::default(),
        }
    }

    pub(crate) fn assert_no_rule_broken(&self) {
        assert_eq!(self.server.violations(), [""; 0]);
    }
}

pub(crate) type Context = BTreeMap<String, String>;

pub(crate) fn client(name: &str, endpoint: PathBuf, call_timeout: Duration) -> Arc<Driver> {
    let name: DriverName = name.parse().unwrap();
    let config = DriverConfig::unix(name.clone(), endpoint, call_timeout);
    Registry::new(vec![config]).get(&name).unwrap()
}

pub(crate) fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: AccessMode::SingleNodeSingleWriter,
        volume_mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        mount_flags: Vec::new(),
        mount_group: String::new(),
    }
}

pub(crate) fn create() -> CreateVolume {
    CreateVolume {
        name: "av-1".into(),
        required_bytes: 1 << 20,
        capability: capability(),
        parameters: [("k".to_owned(), "v".to_owned())].into(),
        accessibility: Accessibility::default(),
        secrets: Secrets::default(),
    }
}

#[track_caller]
pub(crate) fn failed<T>(result: Result<T, CallError>, outcome: Outcome, kind: Kind) -> String {
    let error = result.err().expect("the call fails");
    assert_eq!((error.outcome, error.error.kind()), (outcome, kind));
    error.to_string()
}

pub(crate) fn deletion(volume_id: &str) -> DeleteVolume {
    DeleteVolume {
        volume_id: volume_id.into(),
        secrets: Secrets::default(),
    }
}

pub(crate) fn detachment(volume_id: &str, node_id: &str) -> ControllerUnpublish {
    ControllerUnpublish {
        volume_id: volume_id.into(),
        node_id: node_id.into(),
        secrets: Secrets::default(),
    }
}
