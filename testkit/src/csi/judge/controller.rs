// SPDX-License-Identifier: Apache-2.0
//! Rules of the Controller service.

use std::collections::BTreeSet;

use actor_volumes::proto::csi::{self as wire, volume_content_source as source};
use prost::Message;

use super::{
    At, Broken, End, Fields, Judge, Judgement, Known, Told, offered,
    request::{self, capability, many_nodes, mode_of},
    required, rule, sorted,
};
use crate::csi::options::Segments;

/// Keys of a class that are for the caller, not for the driver.
const RESERVED: &str = "csi.storage.k8s.io/";

/// Characters that a volume's name must not have.
fn is_control(c: char) -> bool {
    let harmless = matches!(c, '\u{9}' | '\u{a}' | '\u{d}');
    c.is_control() && !harmless
}

fn segments(topologies: &[wire::Topology]) -> Vec<Segments> {
    let of = |t: &wire::Topology| sorted(&t.segments);
    topologies.iter().map(of).collect()
}

/// Whether something at `here` has all that `wanted` names.
pub(in crate::csi) fn reaches(here: &Segments, wanted: &Segments) -> bool {
    wanted.iter().all(|(key, value)| {
        let mut same = here.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key));
        same.any(|(_, v)| v == value)
    })
}

impl Judge {
    pub(in crate::csi) fn create(
        &mut self,
        at: &At<'_>,
        request: &wire::CreateVolumeRequest,
    ) -> Judgement {
        let (options, name) = (at.options, &request.name);
        let about = format!("CreateVolume {name}");
        offered(options.create, &about, "CREATE_DELETE_VOLUME")?;
        required(!name.is_empty(), &about, "name")?;
        rule(!name.contains(is_control), || {
            format!("{about}: control characters in the name")
        })?;
        request::short(&about, "name", name)?;
        rule(!self.deleted.values().any(|n| n == name), || {
            format!("{about} after it was deleted")
        })?;
        request::range(&about, request.capacity_range.as_ref())?;
        let some = !request.volume_capabilities.is_empty();
        required(some, &about, "volume_capabilities")?;
        for one in &request.volume_capabilities {
            capability(at, &about, Some(one))?;
        }
        request::small(&about, "parameters", &request.parameters)?;
        let mut keys = request.parameters.keys();
        rule(!keys.any(|k| k.starts_with(RESERVED)), || {
            format!("{about}: a parameter that is for the caller alone")
        })?;
        let mutable = request.mutable_parameters.is_empty();
        offered(mutable, &about, "MODIFY_VOLUME")?;
        accessibility(at, &about, request.accessibility_requirements.as_ref())?;
        content_source(at, &about, request.volume_content_source.as_ref())?;
        request::secrets(options, &about, request, &options.secrets.provisioner)?;
        let range = request.capacity_range.unwrap_or_default();
        let accessibility = request.accessibility_requirements.as_ref();
        let capabilities = request.volume_capabilities.iter();
        let fields = Fields::default()
            .with(
                "capacity_range",
                (
                    range.required_bytes,
                    range.limit_bytes,
                    request.capacity_range.is_some(),
                ),
            )
            .with(
                "volume_capabilities",
                capabilities.map(Message::encode_to_vec).collect::<Vec<_>>(),
            )
            .with_map("parameters", &request.parameters)
            .with(
                "volume_content_source",
                request
                    .volume_content_source
                    .as_ref()
                    .map(Message::encode_to_vec),
            )
            .with(
                "accessibility_requirements",
                accessibility.map(|a| (segments(&a.requisite), segments(&a.preferred))),
            );
        self.same_fields(&about, fields)
    }

    pub(in crate::csi) fn created(
        &mut self,
        request: &wire::CreateVolumeRequest,
        end: &End<'_, wire::CreateVolumeResponse>,
    ) {
        match end {
            End::Heard(answer) | End::Unheard(answer) => {
                let Some(volume) = &answer.volume else { return };
                let told = self.volumes.entry(volume.volume_id.clone());
                let told = told.or_default();
                told.name.clone_from(&request.name);
                told.context = sorted(&volume.volume_context);
                told.topology = segments(&volume.accessible_topology);
            }
            End::Failed(_) => {
                // A request that was refused may be mended.
                let exists = self.volumes.values().any(|t| t.name == request.name);
                if end.is_refusal() && !exists {
                    self.tried.remove(&format!("CreateVolume {}", request.name));
                }
            }
        }
    }

    pub(in crate::csi) fn delete(
        &mut self,
        at: &At<'_>,
        request: &wire::DeleteVolumeRequest,
    ) -> Judgement {
        let (options, id) = (at.options, &request.volume_id);
        let about = format!("DeleteVolume {id}");
        offered(options.create, &about, "CREATE_DELETE_VOLUME")?;
        required(!id.is_empty(), &about, "volume_id")?;
        request::secrets(options, &about, request, &options.secrets.provisioner)?;
        let Some(told) = self.volumes.get_mut(id) else {
            return Ok(());
        };
        let used = told.in_use();
        rule(used.is_none(), || {
            format!("{about} while it is in use {}", used.unwrap_or_default())
        })?;
        told.deleting = true;
        Ok(())
    }

    pub(in crate::csi) fn was_deleted(
        &mut self,
        request: &wire::DeleteVolumeRequest,
        end: &End<'_, wire::DeleteVolumeResponse>,
    ) {
        let id = &request.volume_id;
        if end.heard()
            && let Some(told) = self.volumes.remove(id)
        {
            self.deleted.insert(id.clone(), told.name);
        } else if end.is_refusal()
            && let Some(told) = self.volumes.get_mut(id)
        {
            told.deleting = false;
        }
    }

    pub(in crate::csi) fn attach(
        &mut self,
        at: &At<'_>,
        request: &wire::ControllerPublishVolumeRequest,
    ) -> Judgement {
        let options = at.options;
        let (id, node) = (&request.volume_id, &request.node_id);
        let about = format!("ControllerPublishVolume {id} on {node}");
        offered(options.attach, &about, "PUBLISH_UNPUBLISH_VOLUME")?;
        rule(!node.is_empty() && node.len() <= 256, || {
            format!("{about}: node_id of {} bytes", node.len())
        })?;
        let mode = capability(at, &about, request.volume_capability.as_ref())?;
        let read_only = !request.readonly || options.publish_readonly;
        offered(read_only, &about, "PUBLISH_READONLY")?;
        let expected = &options.secrets.controller_publish;
        request::secrets(options, &about, request, expected)?;
        let Some(told) = self.alive(&about, id)? else {
            return Ok(());
        };
        rule(sorted(&request.volume_context) == told.context, || {
            format!("{about}: another volume_context")
        })?;
        in_reach(at, &about, told, node)?;
        let mut others = told
            .nodes
            .iter()
            .filter(|(n, a)| *n != node && a.attached.is_some());
        let other = others.next().filter(|_| !many_nodes(mode)).map(|(n, _)| n);
        rule(other.is_none(), || {
            format!("{about}, still attached to {other:?}")
        })?;
        let fields = Fields::default()
            .with(
                "volume_capability",
                request
                    .volume_capability
                    .as_ref()
                    .map(Message::encode_to_vec),
            )
            .with("readonly", request.readonly)
            .with_map("volume_context", &request.volume_context);
        self.same_fields(&about, fields)?;
        if let Some(at) = self.at_node(id, node) {
            at.attached = at.attached.or(Some(Known::Maybe));
        }
        Ok(())
    }

    pub(in crate::csi) fn attached(
        &mut self,
        request: &wire::ControllerPublishVolumeRequest,
        end: &End<'_, wire::ControllerPublishVolumeResponse>,
    ) {
        let (id, node) = (&request.volume_id, &request.node_id);
        let Some(at) = self.at_node(id, node) else {
            return;
        };
        match end {
            End::Heard(answer) | End::Unheard(answer) => {
                at.publish_context = sorted(&answer.publish_context);
                if end.heard() {
                    at.attached = Some(Known::Yes);
                }
            }
            End::Failed(_) => {
                if end.is_final() && at.attached != Some(Known::Yes) {
                    at.attached = None;
                    let about = format!("ControllerPublishVolume {id} on {node}");
                    self.tried.remove(&about);
                }
            }
        }
    }

    pub(in crate::csi) fn detach(
        &mut self,
        at: &At<'_>,
        request: &wire::ControllerUnpublishVolumeRequest,
    ) -> Judgement {
        let options = at.options;
        let (id, node) = (&request.volume_id, &request.node_id);
        let about = format!("ControllerUnpublishVolume {id} on {node}");
        offered(options.attach, &about, "PUBLISH_UNPUBLISH_VOLUME")?;
        let expected = &options.secrets.controller_publish;
        request::secrets(options, &about, request, expected)?;
        self.alive(&about, id)?;
        let Some(told) = self.volumes.get_mut(id) else {
            return Ok(());
        };
        let nodes = told.nodes.iter_mut();
        for (name, at) in nodes.filter(|(n, _)| node.is_empty() || *n == node) {
            rule(at.is_released(), || {
                format!("{about} before it was released on {name}")
            })?;
            at.attached = at.attached.map(|_| Known::Maybe);
        }
        Ok(())
    }

    pub(in crate::csi) fn detached(
        &mut self,
        request: &wire::ControllerUnpublishVolumeRequest,
        end: &End<'_, wire::ControllerUnpublishVolumeResponse>,
    ) {
        let (id, node) = (&request.volume_id, &request.node_id);
        let Some(told) = self.volumes.get_mut(id).filter(|_| end.is_gone()) else {
            return;
        };
        let gone = |n: &String| node.is_empty() || n == node;
        let names: BTreeSet<_> = told.nodes.keys().filter(|n| gone(n)).cloned().collect();
        for name in names {
            told.nodes.remove(&name);
            self.tried
                .remove(&format!("ControllerPublishVolume {id} on {name}"));
        }
    }

    pub(in crate::csi) fn expand(
        &mut self,
        at: &At<'_>,
        request: &wire::ControllerExpandVolumeRequest,
    ) -> Judgement {
        let (options, id) = (at.options, &request.volume_id);
        let about = format!("ControllerExpandVolume {id}");
        offered(options.expand_controller, &about, "EXPAND_VOLUME")?;
        offered(options.expansion.is_some(), &about, "VolumeExpansion")?;
        required(request.capacity_range.is_some(), &about, "capacity_range")?;
        request::range(&about, request.capacity_range.as_ref())?;
        if request.volume_capability.is_some() {
            capability(at, &about, request.volume_capability.as_ref())?;
        }
        let expected = &options.secrets.controller_expand;
        request::secrets(options, &about, request, expected)?;
        if self.alive(&about, id)?.is_none() {
            return Ok(());
        }
        let fields = expansion(request.capacity_range, request.volume_capability.as_ref());
        self.same_fields(&about, fields)
    }

    pub(in crate::csi) fn expanded(
        &mut self,
        request: &wire::ControllerExpandVolumeRequest,
        end: &End<'_, wire::ControllerExpandVolumeResponse>,
    ) {
        let id = &request.volume_id;
        if end.heard() || end.is_refusal() {
            self.tried.remove(&format!("ControllerExpandVolume {id}"));
        }
        if end.heard()
            && let Some(told) = self.volumes.get_mut(id)
        {
            told.expanded = true;
        }
    }

    pub(in crate::csi) fn validate(
        &mut self,
        at: &At<'_>,
        request: &wire::ValidateVolumeCapabilitiesRequest,
    ) -> Judgement {
        let (options, id) = (at.options, &request.volume_id);
        let about = format!("ValidateVolumeCapabilities {id}");
        let some = !request.volume_capabilities.is_empty();
        required(some, &about, "volume_capabilities")?;
        for one in &request.volume_capabilities {
            capability(at, &about, Some(one))?;
        }
        request::secrets(options, &about, request, &options.secrets.provisioner)?;
        let told = self.alive(&about, id)?;
        // Here it may be left out.
        let given = sorted(&request.volume_context);
        let same = given.is_empty() || told.is_none_or(|t| t.context == given);
        rule(same, || format!("{about}: another volume_context"))
    }

    pub(in crate::csi) fn list(
        &mut self,
        at: &At<'_>,
        request: &wire::ListVolumesRequest,
    ) -> Judgement {
        let about = "ListVolumes";
        offered(at.options.list, about, "LIST_VOLUMES")?;
        request::secrets(at.options, about, request, &Default::default())?;
        rule(request.max_entries >= 0, || {
            format!("{about}: max_entries below 0")
        })
    }
}

/// The fields of both requests to expand.
pub(super) fn expansion(
    range: Option<wire::CapacityRange>,
    capability: Option<&wire::VolumeCapability>,
) -> Fields {
    let range = range.unwrap_or_default();
    Fields::default()
        .with("capacity_range", (range.required_bytes, range.limit_bytes))
        .with("volume_capability", capability.map(Message::encode_to_vec))
}

/// The node can reach the volume.
pub(super) fn in_reach(at: &At<'_>, about: &str, told: &Told, node: &str) -> Judgement {
    let Some(here) = at.options.topologies.get(node) else {
        return Ok(());
    };
    let reached = told.topology.is_empty() || told.topology.iter().any(|t| reaches(here, t));
    rule(reached, || {
        format!("{about}: the volume can not be reached from this node")
    })
}

fn accessibility(
    at: &At<'_>,
    about: &str,
    requirement: Option<&wire::TopologyRequirement>,
) -> Judgement {
    let Some(requirement) = requirement else {
        return Ok(());
    };
    let constrained = !at.options.topologies.is_empty();
    offered(constrained, about, "VOLUME_ACCESSIBILITY_CONSTRAINTS")?;
    let requisite = segments(&requirement.requisite);
    let preferred = segments(&requirement.preferred);
    rule(!requisite.is_empty() || !preferred.is_empty(), || {
        format!("{about}: accessibility_requirements without a topology")
    })?;
    let all = requisite.iter().chain(&preferred);
    rule(all.clone().all(|t| !t.is_empty()), || {
        format!("{about}: a topology without segments")
    })?;
    let part = requisite.is_empty() || preferred.iter().all(|t| requisite.contains(t));
    rule(part, || {
        format!("{about}: a preferred topology that is not a requisite one")
    })
}

fn content_source(at: &At<'_>, about: &str, from: Option<&wire::VolumeContentSource>) -> Judgement {
    match from.map(|f| &f.r#type) {
        None => Ok(()),
        Some(Some(source::Type::Volume(_))) => {
            offered(at.options.clone_volume, about, "CLONE_VOLUME")
        }
        Some(Some(source::Type::Snapshot(_))) => offered(false, about, "CREATE_DELETE_SNAPSHOT"),
        Some(None) => rule(false, || {
            format!("{about}: a volume_content_source of nothing")
        }),
    }
}

/// The mode of a capability that was judged.
pub(in crate::csi) fn is_shared(capability: Option<&wire::VolumeCapability>) -> bool {
    capability.is_some_and(|c| many_nodes(mode_of(c)))
}

/// A judgement may also end the road of a call.
impl From<Broken> for tonic::Status {
    fn from(broken: Broken) -> Self {
        Self::new(broken.code, broken.text)
    }
}
