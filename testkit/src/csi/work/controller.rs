// SPDX-License-Identifier: Apache-2.0
//! The Controller service.

use std::collections::HashMap;

use actor_volumes::proto::csi::{
    self as wire, list_volumes_response as list, validate_volume_capabilities_response as validate,
    volume_capability::AccessType, volume_content_source as source,
};
use tonic::Status;

use super::{Done, Volume, Work, trouble};
use crate::csi::{
    Expansion, Options,
    judge::{is_shared, reaches},
    lock,
    options::Segments,
};

/// The id of the volume of this name; its characters make it unfit for a path.
pub(in crate::csi) fn id_of(options: &Options, name: &str) -> String {
    let id = format!("../{name}#1");
    let more = options.id_bytes.saturating_sub(id.len());
    id + &"x".repeat(more)
}

fn token(options: &Options, id: &str, node: &str) -> HashMap<String, String> {
    let mut context: HashMap<_, _> = [("token".into(), format!("{id} on {node}"))].into();
    if options.publish_context_bytes > 0 {
        context.insert("more".into(), "x".repeat(options.publish_context_bytes));
    }
    context
}

fn topology(segments: &Segments) -> wire::Topology {
    wire::Topology {
        segments: segments.clone().into_iter().collect(),
    }
}

/// A topology that keeps what is required, the preferred ones first.
fn choose(options: &Options, wanted: Option<&wire::TopologyRequirement>) -> Done<Vec<Segments>> {
    let mut offered = options.topologies.values();
    if options.topologies.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(wrong) = &options.wrong_topology {
        return Ok(vec![wrong.clone()]);
    }
    let Some(wanted) = wanted else {
        return Ok(offered.next().cloned().into_iter().collect());
    };
    for one in wanted.preferred.iter().chain(&wanted.requisite) {
        let one: Segments = one.segments.clone().into_iter().collect();
        if let Some(found) = offered.clone().find(|o| reaches(o, &one)) {
            return Ok(vec![found.clone()]);
        }
    }
    Err(Status::resource_exhausted("no space where it is required"))
}

impl Volume {
    fn to_wire(&self, id: &str) -> wire::Volume {
        let from = |volume_id: &String| wire::VolumeContentSource {
            r#type: Some(source::Type::Volume(source::VolumeSource {
                volume_id: volume_id.clone(),
            })),
        };
        wire::Volume {
            volume_id: id.into(),
            capacity_bytes: self.capacity,
            volume_context: self.context.clone().into_iter().collect(),
            content_source: self.source.as_ref().map(from),
            accessible_topology: self.topology.iter().map(topology).collect(),
        }
    }
}

impl Work {
    pub(in crate::csi) fn create(
        &self,
        request: &wire::CreateVolumeRequest,
    ) -> Done<wire::CreateVolumeResponse> {
        let (options, name) = (&self.options, &request.name);
        let id = id_of(options, name);
        let answer = |volume: &Volume| wire::CreateVolumeResponse {
            volume: Some(self.hostile().volume(volume.to_wire(&id))),
        };
        if let Some(there) = self.truth(|t| t.volumes.get(&id).map(answer)) {
            return Ok(there);
        }
        let mut accesses = request.volume_capabilities.iter();
        let block = accesses.any(|c| matches!(c.access_type, Some(AccessType::Block(_))));
        if block && !options.backend.has_block() {
            return Err(Status::invalid_argument("no block volumes here"));
        }
        let range = request.capacity_range.unwrap_or_default();
        let asked = range.required_bytes.max(1);
        let mut volume = Volume {
            name: name.clone(),
            capacity: options.capacity.unwrap_or(range.required_bytes),
            context: [("volume".into(), name.clone())].into(),
            topology: choose(options, request.accessibility_requirements.as_ref())?,
            told_as: self.hostile().volume_id,
            ..Volume::default()
        };
        let from = request.volume_content_source.as_ref();
        let from = match from.and_then(|f| f.r#type.as_ref()) {
            Some(source::Type::Volume(from)) if !options.ignore_content_source => {
                volume.source = Some(from.volume_id.clone());
                Some(self.volume(&from.volume_id, |v| v.name.clone())?)
            }
            _ => None,
        };
        if !self.fault.lie {
            let effect = self.effect(name);
            let size = u64::try_from(volume.capacity.max(asked)).unwrap_or(1);
            effect.make(size, from.as_deref()).map_err(trouble)?;
            let made = answer(&volume);
            self.truth(|t| t.volumes.insert(id.clone(), volume));
            return Ok(made);
        }
        Ok(answer(&volume))
    }

    pub(in crate::csi) fn delete(
        &self,
        request: &wire::DeleteVolumeRequest,
    ) -> Done<wire::DeleteVolumeResponse> {
        let told = &request.volume_id;
        let known = self.truth(|truth| {
            let mut all = truth.volumes.iter();
            let found = all.find(|(_, v)| v.told_as.as_ref() == Some(told));
            found.map(|(id, _)| id.clone())
        });
        let id = &known.unwrap_or_else(|| told.clone());
        let used = |v: &mut Volume| (v.name.clone(), v.attached.is_empty() && v.used.is_empty());
        let Ok((name, free)) = self.volume(id, used) else {
            return Ok(wire::DeleteVolumeResponse {});
        };
        if !self.fault.lie {
            if !free {
                let text = format!("volume {id} is still attached, staged or published");
                return Err(Status::failed_precondition(text));
            }
            self.effect(&name).remove().map_err(trouble)?;
            self.truth(|t| t.volumes.remove(id));
        }
        Ok(wire::DeleteVolumeResponse {})
    }

    pub(in crate::csi) fn attach(
        &self,
        request: &wire::ControllerPublishVolumeRequest,
    ) -> Done<wire::ControllerPublishVolumeResponse> {
        let (id, node) = (&request.volume_id, &request.node_id);
        if !self.shared.knows_node(node) {
            return Err(Status::not_found(format!("no node {node}")));
        }
        let shared = is_shared(request.volume_capability.as_ref());
        self.truth(|truth| {
            let max = usize::try_from(self.options.max_volumes_per_node).unwrap_or(0);
            let here = truth.volumes.values();
            let here = here.filter(|v| v.attached.contains_key(node)).count();
            let volume = truth.volumes.get_mut(id);
            let volume = volume.ok_or_else(|| Status::not_found(format!("no volume {id}")))?;
            if volume.attached.contains_key(node) || self.fault.lie {
                return Ok(());
            }
            let mut others = volume.attached.iter();
            if let Some((other, _)) = others.find(|(_, others)| !shared || !**others) {
                let text = format!("volume {id} is attached to {other}");
                return Err(Status::failed_precondition(text));
            }
            if max > 0 && here >= max {
                let text = format!("node {node} has {here} volumes already");
                return Err(Status::resource_exhausted(text));
            }
            volume.attached.insert(node.clone(), shared);
            Ok(())
        })?;
        Ok(wire::ControllerPublishVolumeResponse {
            publish_context: self
                .hostile()
                .publish_context(token(&self.options, id, node)),
        })
    }

    pub(in crate::csi) fn detach(
        &self,
        request: &wire::ControllerUnpublishVolumeRequest,
    ) -> Done<wire::ControllerUnpublishVolumeResponse> {
        let (id, node) = (&request.volume_id, &request.node_id);
        let remove = |v: &mut Volume| v.attached.retain(|n, _| !node.is_empty() && n != node);
        if !self.fault.lie {
            // It is no error if there is no such volume any more.
            let _gone = self.volume(id, remove);
        }
        Ok(wire::ControllerUnpublishVolumeResponse {})
    }

    pub(in crate::csi) fn expand(
        &self,
        request: &wire::ControllerExpandVolumeRequest,
    ) -> Done<wire::ControllerExpandVolumeResponse> {
        let id = &request.volume_id;
        let range = request.capacity_range.unwrap_or_default();
        let offline = self.options.expansion == Some(Expansion::Offline);
        let (name, now, used) = self.volume(id, |v| {
            let used = !v.attached.is_empty() || !v.used.is_empty();
            (v.name.clone(), v.capacity, used)
        })?;
        let capacity = now.max(range.required_bytes);
        if range.limit_bytes > 0 && capacity > range.limit_bytes {
            let text = format!("volume {id} has {capacity} bytes and does not shrink");
            return Err(Status::out_of_range(text));
        }
        if offline && used && capacity > now {
            let text = format!("volume {id} is in use");
            return Err(Status::failed_precondition(text));
        }
        if !self.fault.lie {
            let size = u64::try_from(capacity).unwrap_or(1);
            self.effect(&name).grow(size).map_err(trouble)?;
            self.volume(id, |v| v.capacity = capacity)?;
        }
        Ok(wire::ControllerExpandVolumeResponse {
            capacity_bytes: capacity,
            node_expansion_required: self.options.node_expansion_required,
        })
    }

    pub(in crate::csi) fn validate(
        &self,
        request: &wire::ValidateVolumeCapabilitiesRequest,
    ) -> Done<wire::ValidateVolumeCapabilitiesResponse> {
        self.volume(&request.volume_id, |_| ())?;
        Ok(wire::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(validate::Confirmed {
                volume_context: request.volume_context.clone(),
                volume_capabilities: request.volume_capabilities.clone(),
                parameters: request.parameters.clone(),
                mutable_parameters: request.mutable_parameters.clone(),
            }),
            message: String::new(),
        })
    }

    pub(in crate::csi) fn list(
        &self,
        request: &wire::ListVolumesRequest,
    ) -> Done<wire::ListVolumesResponse> {
        let token = &request.starting_token;
        self.truth(|truth| {
            let all = truth.volumes.len();
            let from = match token.strip_prefix("from-") {
                _ if token.is_empty() => 0,
                Some(number) => number.parse().unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            if from > all {
                return Err(Status::aborted(
                    "no such starting_token: list from the start",
                ));
            }
            let most = usize::try_from(request.max_entries).unwrap_or(0);
            let most = if most == 0 { all } else { most };
            let page = truth.volumes.iter().skip(from).take(most);
            let entries = page.map(|(id, volume)| {
                let nodes = volume.attached.keys().filter(|_| self.options.list_nodes);
                list::Entry {
                    volume: Some(volume.to_wire(id)),
                    status: Some(list::VolumeStatus {
                        published_node_ids: nodes.cloned().collect(),
                        volume_condition: self.condition(id),
                    }),
                }
            });
            let entries: Vec<_> = entries.collect();
            let next = from + entries.len();
            Ok(wire::ListVolumesResponse {
                entries,
                next_token: if next < all {
                    format!("from-{next}")
                } else {
                    String::new()
                },
            })
        })
    }

    pub(super) fn condition(&self, id: &str) -> Option<wire::VolumeCondition> {
        let message = lock(&self.shared.abnormal).get(id).cloned();
        self.options.condition.then(|| wire::VolumeCondition {
            abnormal: message.is_some(),
            message: message.unwrap_or_else(|| "well".into()),
        })
    }
}
