// SPDX-License-Identifier: Apache-2.0
//! A caller who does everything right, unless told otherwise.

use std::collections::HashMap;

use actor_volumes::proto::csi::{
    self as wire, CapacityRange, VolumeCapability, volume_capability as capability,
    volume_capability::access_mode::Mode,
};
use tempfile::TempDir;
use tonic::Code;

use crate::csi::{
    Backend, Options,
    judge::{At, Broken, End, Judge},
};

pub(super) type Map = HashMap<String, String>;
pub(super) type Judged = Result<(), Broken>;

pub(super) const ID: &str = "../av#1";

/// How calls that keep the rules end.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    Heard,
    Unheard,
    Failed(Code),
}

pub(super) struct Scene {
    dir: TempDir,
    judge: Judge,
    pub(super) options: Options,
    pub(super) node: &'static str,
    pub(super) ending: Ending,
    /// What CreateVolume answers as accessible_topology.
    pub(super) topology: Vec<wire::Topology>,
}

pub(super) fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(super) fn mount(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(capability::AccessMode { mode: mode.into() }),
        access_type: Some(capability::AccessType::Mount(
            capability::MountVolume::default(),
        )),
    }
}

/// The part of a capability that says how it is mounted.
pub(super) fn mounting(capability: &mut Option<VolumeCapability>) -> &mut capability::MountVolume {
    let access = capability.as_mut().and_then(|c| c.access_type.as_mut());
    match access {
        Some(capability::AccessType::Mount(mount)) => mount,
        _ => panic!("it is not mounted"),
    }
}

macro_rules! calls {
    ($($call:ident $request:ident: $judge:ident, |$judged:ident, $at:ident, $asked:ident, $end:ident| $settle:expr, $reply:expr;)*) => {$(
        pub(super) fn $call(&mut self, change: impl FnOnce(&mut wire::$request)) -> Judged {
            let mut request = self.$request();
            change(&mut request);
            let $at = At { options: &self.options, node: self.node };
            self.judge.$judge(&$at, &request)?;
            let reply = ($reply)(&*self);
            let $end = match self.ending {
                Ending::Heard => End::Heard(&reply),
                Ending::Unheard => End::Unheard(&reply),
                Ending::Failed(code) => End::Failed(code),
            };
            let $at = At { options: &self.options, node: self.node };
            let ($judged, $asked) = (&mut self.judge, &request);
            $settle;
            Ok(())
        }
    )*};
}

/// Calls that change nothing.
macro_rules! judgements {
    ($($call:ident $request:ident;)*) => {$(
        pub(super) fn $call(&mut self, change: impl FnOnce(&mut wire::$request)) -> Judged {
            let mut request = self.$request();
            change(&mut request);
            let at = At { options: &self.options, node: self.node };
            self.judge.$call(&at, &request)
        }
    )*};
}

#[allow(non_snake_case)] // the requests are called as their types
impl Scene {
    pub(super) fn new(change: fn(&mut Options)) -> Self {
        let mut options = Options::new(Backend::Memory);
        options.attach = true;
        change(&mut options);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("staging")).unwrap();
        Self {
            dir,
            judge: Judge::default(),
            options,
            node: "node-a",
            ending: Ending::Heard,
            topology: Vec::new(),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    pub(super) fn fence(&mut self, node: &str) {
        self.judge.fence(node);
    }

    /// The calls of this scene end so from now on.
    pub(super) fn ending(&mut self, ending: Ending) -> &mut Self {
        self.ending = ending;
        self
    }

    fn context(&self) -> Map {
        map([("volume", "av")])
    }

    fn publish_context(&self) -> Map {
        let attached = [("token", self.node)];
        if self.options.attach {
            map(attached)
        } else {
            Map::new()
        }
    }

    fn CreateVolumeRequest(&self) -> wire::CreateVolumeRequest {
        wire::CreateVolumeRequest {
            name: "av".into(),
            capacity_range: Some(size(1 << 20)),
            volume_capabilities: vec![mount(Mode::SingleNodeWriter)],
            secrets: self
                .options
                .secrets
                .provisioner
                .clone()
                .into_iter()
                .collect(),
            ..Default::default()
        }
    }

    fn DeleteVolumeRequest(&self) -> wire::DeleteVolumeRequest {
        wire::DeleteVolumeRequest {
            volume_id: ID.into(),
            secrets: self
                .options
                .secrets
                .provisioner
                .clone()
                .into_iter()
                .collect(),
        }
    }

    fn ControllerPublishVolumeRequest(&self) -> wire::ControllerPublishVolumeRequest {
        let secrets = self.options.secrets.controller_publish.clone();
        wire::ControllerPublishVolumeRequest {
            volume_id: ID.into(),
            node_id: self.node.into(),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
            readonly: false,
            secrets: secrets.into_iter().collect(),
            volume_context: self.context(),
        }
    }

    fn ControllerUnpublishVolumeRequest(&self) -> wire::ControllerUnpublishVolumeRequest {
        let secrets = self.options.secrets.controller_publish.clone();
        wire::ControllerUnpublishVolumeRequest {
            volume_id: ID.into(),
            node_id: self.node.into(),
            secrets: secrets.into_iter().collect(),
        }
    }

    fn ControllerExpandVolumeRequest(&self) -> wire::ControllerExpandVolumeRequest {
        let secrets = self.options.secrets.controller_expand.clone();
        wire::ControllerExpandVolumeRequest {
            volume_id: ID.into(),
            capacity_range: Some(size(2 << 20)),
            secrets: secrets.into_iter().collect(),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
        }
    }

    fn ValidateVolumeCapabilitiesRequest(&self) -> wire::ValidateVolumeCapabilitiesRequest {
        wire::ValidateVolumeCapabilitiesRequest {
            volume_id: ID.into(),
            volume_context: self.context(),
            volume_capabilities: vec![mount(Mode::SingleNodeWriter)],
            secrets: self
                .options
                .secrets
                .provisioner
                .clone()
                .into_iter()
                .collect(),
            ..Default::default()
        }
    }

    fn ListVolumesRequest(&self) -> wire::ListVolumesRequest {
        wire::ListVolumesRequest::default()
    }

    fn NodeStageVolumeRequest(&self) -> wire::NodeStageVolumeRequest {
        wire::NodeStageVolumeRequest {
            volume_id: ID.into(),
            publish_context: self.publish_context(),
            staging_target_path: self.path("staging"),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
            secrets: self
                .options
                .secrets
                .node_stage
                .clone()
                .into_iter()
                .collect(),
            volume_context: self.context(),
        }
    }

    fn NodeUnstageVolumeRequest(&self) -> wire::NodeUnstageVolumeRequest {
        wire::NodeUnstageVolumeRequest {
            volume_id: ID.into(),
            staging_target_path: self.path("staging"),
        }
    }

    fn NodePublishVolumeRequest(&self) -> wire::NodePublishVolumeRequest {
        let staging = if self.options.stage {
            self.path("staging")
        } else {
            String::new()
        };
        wire::NodePublishVolumeRequest {
            volume_id: ID.into(),
            publish_context: self.publish_context(),
            staging_target_path: staging,
            target_path: self.path("target"),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
            readonly: false,
            secrets: self
                .options
                .secrets
                .node_publish
                .clone()
                .into_iter()
                .collect(),
            volume_context: self.context(),
        }
    }

    fn NodeUnpublishVolumeRequest(&self) -> wire::NodeUnpublishVolumeRequest {
        wire::NodeUnpublishVolumeRequest {
            volume_id: ID.into(),
            target_path: self.path("target"),
        }
    }

    fn NodeGetVolumeStatsRequest(&self) -> wire::NodeGetVolumeStatsRequest {
        wire::NodeGetVolumeStatsRequest {
            volume_id: ID.into(),
            volume_path: self.path("target"),
            staging_target_path: self.path("staging"),
        }
    }

    fn NodeExpandVolumeRequest(&self) -> wire::NodeExpandVolumeRequest {
        wire::NodeExpandVolumeRequest {
            volume_id: ID.into(),
            volume_path: self.path("target"),
            capacity_range: Some(size(2 << 20)),
            staging_target_path: self.path("staging"),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
            secrets: self
                .options
                .secrets
                .node_expand
                .clone()
                .into_iter()
                .collect(),
        }
    }

    calls! {
        create CreateVolumeRequest: create, |j, _at, r, e| j.created(r, &e), |scene: &Self| {
            let volume = wire::Volume {
                volume_id: ID.into(),
                volume_context: scene.context(),
                accessible_topology: scene.topology.clone(),
                ..Default::default()
            };
            wire::CreateVolumeResponse { volume: Some(volume) }
        };
        delete DeleteVolumeRequest: delete,
            |j, _at, r, e| j.was_deleted(r, &e), |_| wire::DeleteVolumeResponse {};
        attach ControllerPublishVolumeRequest: attach, |j, _at, r, e| j.attached(r, &e),
            |scene: &Self| wire::ControllerPublishVolumeResponse {
                publish_context: scene.publish_context(),
            };
        detach ControllerUnpublishVolumeRequest: detach,
            |j, _at, r, e| j.detached(r, &e), |_| wire::ControllerUnpublishVolumeResponse {};
        expand ControllerExpandVolumeRequest: expand,
            |j, _at, r, e| j.expanded(r, &e),
            |_| wire::ControllerExpandVolumeResponse::default();
        stage NodeStageVolumeRequest: stage,
            |j, at, r, e| j.staged(&at, r, &e), |_| wire::NodeStageVolumeResponse {};
        unstage NodeUnstageVolumeRequest: unstage,
            |j, at, r, e| j.unstaged(&at, r, &e), |_| wire::NodeUnstageVolumeResponse {};
        publish NodePublishVolumeRequest: publish,
            |j, at, r, e| j.published(&at, r, &e), |_| wire::NodePublishVolumeResponse {};
        unpublish NodeUnpublishVolumeRequest: unpublish,
            |j, at, r, e| j.unpublished(&at, r, &e), |_| wire::NodeUnpublishVolumeResponse {};
        node_expand NodeExpandVolumeRequest: node_expand,
            |j, at, r, e| j.node_expanded(&at, r, &e),
            |_| wire::NodeExpandVolumeResponse::default();
    }

    judgements! {
        validate ValidateVolumeCapabilitiesRequest;
        list ListVolumesRequest;
        stats NodeGetVolumeStatsRequest;
    }

    /// All calls up to this one went well.
    pub(super) fn created(&mut self) -> &mut Self {
        self.create(|_| ()).unwrap();
        self
    }

    pub(super) fn attached(&mut self) -> &mut Self {
        self.created().attach(|_| ()).unwrap();
        self
    }

    pub(super) fn staged(&mut self) -> &mut Self {
        self.attached().stage(|_| ()).unwrap();
        self
    }

    pub(super) fn published(&mut self) -> &mut Self {
        self.staged().publish(|_| ()).unwrap();
        self
    }
}

pub(super) fn size(required_bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes,
        limit_bytes: 0,
    }
}
