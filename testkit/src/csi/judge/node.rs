// SPDX-License-Identifier: Apache-2.0
//! Rules of the Node service.

use std::{collections::HashMap, path::Path};

use actor_volumes::proto::csi::{self as wire, volume_capability::access_mode::Mode};
use prost::Message;

use super::{
    At, End, Fields, Judge, Judgement, Known, Told, controller, offered,
    request::{self, capability, many_nodes},
    rule, sorted,
};

type Contexts<'a> = (&'a HashMap<String, String>, &'a HashMap<String, String>);

/// volume_context as it was given; publish_context as attaching this node gave it.
fn contexts(
    at: &At<'_>,
    about: &str,
    told: &Told,
    (volume_context, publish_context): Contexts<'_>,
) -> Judgement {
    rule(sorted(volume_context) == told.context, || {
        format!("{about}: another volume_context")
    })?;
    if !at.options.attach {
        return rule(publish_context.is_empty(), || {
            format!("{about}: a publish_context that was never given")
        });
    }
    let here = told.nodes.get(at.node);
    let here = here.filter(|n| n.attached == Some(Known::Yes));
    rule(here.is_some(), || {
        format!("{about}: not attached to this node")
    })?;
    let same = here.is_some_and(|n| n.publish_context == sorted(publish_context));
    rule(same, || format!("{about}: another publish_context"))
}

impl Judge {
    /// The id, where it is one of a volume that the caller was told of: other
    /// ids are those of nobody, and may be met in any path.
    fn known<'a>(&self, id: &'a str) -> &'a str {
        if self.volumes.contains_key(id) {
            id
        } else {
            ""
        }
    }

    pub(in crate::csi) fn stage(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeStageVolumeRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        let about = format!("NodeStageVolume {id} on {} at {path}", at.node);
        offered(at.options.stage, &about, "STAGE_UNSTAGE_VOLUME")?;
        request::path(&about, self.known(id), path)?;
        rule(request::is_directory(Path::new(path)), || {
            format!("{about}: the directory does not exist")
        })?;
        capability(at, &about, request.volume_capability.as_ref())?;
        let expected = &at.options.secrets.node_stage;
        request::secrets(at.options, &about, request, expected)?;
        let Some(told) = self.alive(&about, id)? else {
            return Ok(());
        };
        let given = (&request.volume_context, &request.publish_context);
        contexts(at, &about, told, given)?;
        controller::in_reach(at, &about, told, at.node)?;
        let here = told.nodes.get(at.node).and_then(|n| n.staged.as_ref());
        let elsewhere = here.filter(|(p, _)| p != path);
        rule(elsewhere.is_none(), || {
            format!("{about}: staged at {:?}", elsewhere.map(|(p, _)| p))
        })?;
        let fields = Fields::default()
            .with(
                "volume_capability",
                request
                    .volume_capability
                    .as_ref()
                    .map(Message::encode_to_vec),
            )
            .with_map("volume_context", &request.volume_context)
            .with_map("publish_context", &request.publish_context);
        self.same_fields(&about, fields)?;
        if let Some(here) = self.at_node(id, at.node) {
            here.staged.get_or_insert((path.clone(), Known::Maybe));
        }
        Ok(())
    }

    pub(in crate::csi) fn staged(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeStageVolumeRequest,
        end: &End<'_, wire::NodeStageVolumeResponse>,
    ) {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        let Some(here) = self.at_node(id, at.node) else {
            return;
        };
        if end.heard() {
            here.staged = Some((path.clone(), Known::Yes));
        } else if end.is_final() && !matches!(here.staged, Some((_, Known::Yes))) {
            here.staged = None;
            let about = format!("NodeStageVolume {id} on {} at {path}", at.node);
            self.tried.remove(&about);
        }
    }

    pub(in crate::csi) fn unstage(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeUnstageVolumeRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        let about = format!("NodeUnstageVolume {id} on {} at {path}", at.node);
        offered(at.options.stage, &about, "STAGE_UNSTAGE_VOLUME")?;
        request::path(&about, self.known(id), path)?;
        request::secrets(at.options, &about, request, &Default::default())?;
        self.alive(&about, id)?;
        let Some(here) = self.at_node(id, at.node) else {
            return Ok(());
        };
        rule(here.published.is_empty(), || {
            let targets: Vec<_> = here.published.keys().collect();
            format!("{about} while it is published at {targets:?}")
        })?;
        if let Some((staged, known)) = &mut here.staged {
            rule(staged == path, || format!("{about}: staged at {staged:?}"))?;
            *known = Known::Maybe;
        }
        Ok(())
    }

    pub(in crate::csi) fn unstaged(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeUnstageVolumeRequest,
        end: &End<'_, wire::NodeUnstageVolumeResponse>,
    ) {
        let (id, path) = (&request.volume_id, &request.staging_target_path);
        if !end.is_gone() {
            return;
        }
        if let Some(here) = self.at_node(id, at.node) {
            here.staged = None;
        }
        let about = format!("NodeStageVolume {id} on {} at {path}", at.node);
        self.tried.remove(&about);
    }

    pub(in crate::csi) fn publish(
        &mut self,
        at: &At<'_>,
        request: &wire::NodePublishVolumeRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.target_path);
        let staging = &request.staging_target_path;
        let about = format!("NodePublishVolume {id} on {} at {path}", at.node);
        request::path(&about, self.known(id), path)?;
        if !staging.is_empty() {
            offered(at.options.stage, &about, "STAGE_UNSTAGE_VOLUME")?;
            request::path(&about, self.known(id), staging)?;
        }
        let parent = Path::new(path).parent();
        let parent = parent.is_some_and(request::is_directory);
        rule(parent, || {
            format!("{about}: the parent directory does not exist")
        })?;
        let mode = capability(at, &about, request.volume_capability.as_ref())?;
        let expected = &at.options.secrets.node_publish;
        request::secrets(at.options, &about, request, expected)?;
        let stranger = self.volumes.iter().find(|(other, told)| {
            let mut here = told.nodes.get(at.node).into_iter();
            *other != id && here.any(|n| n.has(path))
        });
        rule(stranger.is_none(), || {
            format!("{about}: the path of {:?}", stranger.map(|(id, _)| id))
        })?;
        let Some(told) = self.alive(&about, id)? else {
            return Ok(());
        };
        let given = (&request.volume_context, &request.publish_context);
        contexts(at, &about, told, given)?;
        controller::in_reach(at, &about, told, at.node)?;
        let here = told.nodes.get(at.node);
        if at.options.stage {
            let staged = here.and_then(|n| n.staged.as_ref());
            let staged = staged.filter(|(_, known)| *known == Known::Yes);
            let staged = staged.map_or("", |(p, _)| p.as_str());
            rule(staged == staging, || {
                format!("{about}: staging path {staging:?}, but it is staged at {staged:?}")
            })?;
            rule(!staged.is_empty(), || format!("{about}: not staged"))?;
        }
        let mut others = here.into_iter().flat_map(|n| n.published.keys());
        let other = others.find(|p| *p != path);
        let shared = mode == Mode::SingleNodeMultiWriter || many_nodes(mode);
        rule(other.is_none() || shared, || {
            format!("{about}: still published at {other:?}")
        })?;
        let fields = Fields::default()
            .with(
                "volume_capability",
                request
                    .volume_capability
                    .as_ref()
                    .map(Message::encode_to_vec),
            )
            .with("staging_target_path", staging)
            .with("readonly", request.readonly)
            .with_map("volume_context", &request.volume_context)
            .with_map("publish_context", &request.publish_context);
        self.same_fields(&about, fields)?;
        if let Some(here) = self.at_node(id, at.node) {
            here.published.entry(path.clone()).or_insert(Known::Maybe);
        }
        Ok(())
    }

    pub(in crate::csi) fn published(
        &mut self,
        at: &At<'_>,
        request: &wire::NodePublishVolumeRequest,
        end: &End<'_, wire::NodePublishVolumeResponse>,
    ) {
        let (id, path) = (&request.volume_id, &request.target_path);
        let Some(here) = self.at_node(id, at.node) else {
            return;
        };
        if end.heard() {
            here.published.insert(path.clone(), Known::Yes);
        } else if end.is_final() && here.published.get(path) != Some(&Known::Yes) {
            here.published.remove(path);
            let about = format!("NodePublishVolume {id} on {} at {path}", at.node);
            self.tried.remove(&about);
        }
    }

    pub(in crate::csi) fn unpublish(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeUnpublishVolumeRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.target_path);
        let about = format!("NodeUnpublishVolume {id} on {} at {path}", at.node);
        request::path(&about, self.known(id), path)?;
        request::secrets(at.options, &about, request, &Default::default())?;
        self.alive(&about, id)?;
        let here = self.at_node(id, at.node);
        if let Some(known) = here.and_then(|n| n.published.get_mut(path)) {
            *known = Known::Maybe;
        }
        Ok(())
    }

    pub(in crate::csi) fn unpublished(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeUnpublishVolumeRequest,
        end: &End<'_, wire::NodeUnpublishVolumeResponse>,
    ) {
        let (id, path) = (&request.volume_id, &request.target_path);
        if !end.is_gone() {
            return;
        }
        if let Some(here) = self.at_node(id, at.node) {
            here.published.remove(path);
        }
        let about = format!("NodePublishVolume {id} on {} at {path}", at.node);
        self.tried.remove(&about);
    }

    pub(in crate::csi) fn stats(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeGetVolumeStatsRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.volume_path);
        let about = format!("NodeGetVolumeStats {id} on {} at {path}", at.node);
        let told = at.options.stats || at.options.condition;
        offered(told, &about, "GET_VOLUME_STATS")?;
        self.used_path(at, &about, id, (path, &request.staging_target_path))?;
        request::secrets(at.options, &about, request, &Default::default())
    }

    pub(in crate::csi) fn node_expand(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeExpandVolumeRequest,
    ) -> Judgement {
        let (id, path) = (&request.volume_id, &request.volume_path);
        let about = format!("NodeExpandVolume {id} on {} at {path}", at.node);
        offered(at.options.expand_node, &about, "EXPAND_VOLUME")?;
        offered(at.options.expansion.is_some(), &about, "VolumeExpansion")?;
        request::range(&about, request.capacity_range.as_ref())?;
        if request.volume_capability.is_some() {
            capability(at, &about, request.volume_capability.as_ref())?;
        }
        let expected = &at.options.secrets.node_expand;
        request::secrets(at.options, &about, request, expected)?;
        self.used_path(at, &about, id, (path, &request.staging_target_path))?;
        let Some(told) = self.alive(&about, id)? else {
            return Ok(());
        };
        rule(told.expanded || !at.options.expand_controller, || {
            format!("{about} before ControllerExpandVolume")
        })?;
        let fields =
            controller::expansion(request.capacity_range, request.volume_capability.as_ref());
        let fields = fields.with("staging_target_path", &request.staging_target_path);
        self.same_fields(&about, fields)
    }

    pub(in crate::csi) fn node_expanded(
        &mut self,
        at: &At<'_>,
        request: &wire::NodeExpandVolumeRequest,
        end: &End<'_, wire::NodeExpandVolumeResponse>,
    ) {
        let (id, path) = (&request.volume_id, &request.volume_path);
        if end.heard() || end.is_refusal() {
            let about = format!("NodeExpandVolume {id} on {} at {path}", at.node);
            self.tried.remove(&about);
        }
    }

    /// A path at which this volume is, and the one where it is staged.
    fn used_path(
        &self,
        at: &At<'_>,
        about: &str,
        id: &str,
        (path, staging): (&str, &str),
    ) -> Judgement {
        request::path(about, self.known(id), path)?;
        let Some(told) = self.alive(about, id)? else {
            return Ok(());
        };
        let here = told.nodes.get(at.node);
        rule(here.is_some_and(|n| n.has(path)), || {
            format!("{about}: it is not staged or published there")
        })?;
        let staged = here.and_then(|n| n.staged.as_ref());
        let same = staging.is_empty() || staged.is_some_and(|(p, _)| p == staging);
        rule(same, || {
            format!("{about}: staging path {staging:?}, but it is elsewhere")
        })
    }
}
