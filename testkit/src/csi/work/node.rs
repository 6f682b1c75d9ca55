// SPDX-License-Identifier: Apache-2.0
//! The Node service.

use actor_volumes::proto::csi::{
    self as wire,
    volume_capability::{AccessType, MountVolume},
    volume_usage::Unit,
};
use tonic::Status;

use super::{Done, Volume, Work, trouble};
use crate::csi::backend::{self, Access};

fn access(capability: Option<&wire::VolumeCapability>) -> (Access, Option<&str>) {
    match capability.and_then(|c| c.access_type.as_ref()) {
        Some(AccessType::Block(_)) => (Access::Block, None),
        Some(AccessType::Mount(MountVolume {
            fs_type,
            mount_flags,
            volume_mount_group,
        })) => {
            let access = Access::Mount {
                fs_type: fs_type.clone(),
                flags: mount_flags.clone(),
            };
            let group = (!volume_mount_group.is_empty()).then_some(volume_mount_group.as_str());
            (access, group)
        }
        None => (Access::default(), None),
    }
}

impl Work {
    fn here(&self, path: &str) -> (String, String) {
        (self.node.clone(), path.into())
    }

    /// The name of a volume that this node can have.
    fn at_hand(&self, id: &str) -> Done<String> {
        let attached = |v: &mut Volume| (v.name.clone(), v.attached.contains_key(&self.node));
        let (name, attached) = self.volume(id, attached)?;
        if self.options.attach && !attached {
            let text = format!("the device of volume {id} did not appear");
            return Err(Status::internal(text));
        }
        Ok(name)
    }

    /// Gives the files at `path` to the group, and takes note of it.
    fn give_to_group(&self, id: &str, path: &str, group: Option<&str>) -> Done<()> {
        let Some(group) = group else { return Ok(()) };
        let group = group
            .parse()
            .map_err(|_| Status::invalid_argument("volume_mount_group is no number"))?;
        if self.options.backend.root().is_some() {
            backend::give_to_group(path.as_ref(), group).map_err(trouble)?;
        }
        self.volume(id, |v| v.group = Some(group))
    }

    pub(in crate::csi) fn stage(
        &self,
        request: &wire::NodeStageVolumeRequest,
    ) -> Done<wire::NodeStageVolumeResponse> {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        let name = self.at_hand(id)?;
        if !self.fault.lie {
            let (access, group) = access(request.volume_capability.as_ref());
            let effect = self.effect(&name);
            effect.stage(path.as_ref(), &access).map_err(trouble)?;
            self.give_to_group(id, path, group)?;
            self.volume(id, |v| v.used.insert(self.here(path)))?;
        }
        Ok(wire::NodeStageVolumeResponse {})
    }

    pub(in crate::csi) fn unstage(
        &self,
        request: &wire::NodeUnstageVolumeRequest,
    ) -> Done<wire::NodeUnstageVolumeResponse> {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        if !self.fault.lie
            && let Ok(name) = self.volume(id, |v| v.name.clone())
        {
            let effect = self.effect(&name);
            effect.unstage(path.as_ref()).map_err(trouble)?;
            self.volume(id, |v| v.used.remove(&self.here(path)))?;
        }
        Ok(wire::NodeUnstageVolumeResponse {})
    }

    pub(in crate::csi) fn publish(
        &self,
        request: &wire::NodePublishVolumeRequest,
    ) -> Done<wire::NodePublishVolumeResponse> {
        let (id, path) = (&request.volume_id, &request.target_path);
        let name = self.at_hand(id)?;
        if !self.fault.lie {
            let (access, group) = access(request.volume_capability.as_ref());
            let staging = &request.staging_target_path;
            let staging = (!staging.is_empty()).then(|| staging.as_ref());
            let effect = self.effect(&name);
            let target = path.as_ref();
            effect
                .publish(staging, target, &access, request.readonly)
                .map_err(trouble)?;
            if !self.options.stage {
                self.give_to_group(id, path, group)?;
            }
            self.volume(id, |v| v.used.insert(self.here(path)))?;
        }
        Ok(wire::NodePublishVolumeResponse {})
    }

    pub(in crate::csi) fn unpublish(
        &self,
        request: &wire::NodeUnpublishVolumeRequest,
    ) -> Done<wire::NodeUnpublishVolumeResponse> {
        let (id, path) = (&request.volume_id, &request.target_path);
        if !self.fault.lie
            && let Ok(name) = self.volume(id, |v| v.name.clone())
        {
            let effect = self.effect(&name);
            let staged = self.options.stage;
            effect.unpublish(path.as_ref(), staged).map_err(trouble)?;
            self.volume(id, |v| v.used.remove(&self.here(path)))?;
        }
        Ok(wire::NodeUnpublishVolumeResponse {})
    }

    pub(in crate::csi) fn stats(
        &self,
        request: &wire::NodeGetVolumeStatsRequest,
    ) -> Done<wire::NodeGetVolumeStatsResponse> {
        let (id, path) = (&request.volume_id, &request.volume_path);
        let (used, capacity) =
            self.volume(id, |v| (v.used.contains(&self.here(path)), v.capacity))?;
        if !used {
            return Err(Status::not_found(format!("volume {id} is not at {path}")));
        }
        let usage = match self.options.backend.root() {
            Some(_) => backend::usage(path.as_ref()).map_err(trouble)?,
            None => vec![wire::VolumeUsage {
                available: capacity,
                total: capacity,
                used: 0,
                unit: Unit::Bytes.into(),
            }],
        };
        Ok(wire::NodeGetVolumeStatsResponse {
            usage: if self.options.stats {
                usage
            } else {
                Vec::new()
            },
            volume_condition: self.condition(id),
        })
    }

    pub(in crate::csi) fn node_expand(
        &self,
        request: &wire::NodeExpandVolumeRequest,
    ) -> Done<wire::NodeExpandVolumeResponse> {
        let (id, path) = (&request.volume_id, &request.volume_path);
        let asked = request.capacity_range.unwrap_or_default().required_bytes;
        let (name, now) = self.volume(id, |v| (v.name.clone(), v.capacity))?;
        // Where the controller does not grow it, the node does all.
        let capacity = if self.options.expand_controller {
            now
        } else {
            now.max(asked)
        };
        if !self.fault.lie {
            let size = u64::try_from(capacity).unwrap_or(1);
            let effect = self.effect(&name);
            effect.grow(size).map_err(trouble)?;
            effect.grow_seen(path.as_ref()).map_err(trouble)?;
            self.volume(id, |v| v.capacity = capacity)?;
        }
        Ok(wire::NodeExpandVolumeResponse {
            capacity_bytes: capacity,
        })
    }
}
