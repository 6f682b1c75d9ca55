// SPDX-License-Identifier: Apache-2.0
//! What the driver says that it can.

use actor_volumes::proto::csi::{
    self as wire,
    controller_service_capability::{self as controller, rpc::Type as ControllerType},
    node_service_capability::{self as node, rpc::Type as NodeType},
    plugin_capability::{self as plugin, Service, VolumeExpansion, service, volume_expansion},
};

use crate::csi::{Expansion, Options};

pub(super) fn of_plugin(options: &Options) -> wire::GetPluginCapabilitiesResponse {
    let service = |kind: service::Type| {
        plugin::Type::Service(Service {
            r#type: kind.into(),
        })
    };
    let mut all = vec![service(service::Type::ControllerService)];
    if !options.topologies.is_empty() {
        all.push(service(service::Type::VolumeAccessibilityConstraints));
    }
    if let Some(expansion) = options.expansion {
        let kind = match expansion {
            Expansion::Online => volume_expansion::Type::Online,
            Expansion::Offline => volume_expansion::Type::Offline,
        };
        all.push(plugin::Type::VolumeExpansion(VolumeExpansion {
            r#type: kind.into(),
        }));
    }
    let capabilities = all
        .into_iter()
        .map(|kind| wire::PluginCapability { r#type: Some(kind) });
    wire::GetPluginCapabilitiesResponse {
        capabilities: capabilities.collect(),
    }
}

pub(super) fn of_controller(options: &Options) -> wire::ControllerGetCapabilitiesResponse {
    use ControllerType as Rpc;
    let all = [
        (options.create, Rpc::CreateDeleteVolume),
        (options.attach, Rpc::PublishUnpublishVolume),
        (
            options.controller_single_node_modes,
            Rpc::SingleNodeMultiWriter,
        ),
        (options.list, Rpc::ListVolumes),
        (options.list_nodes, Rpc::ListVolumesPublishedNodes),
        (options.publish_readonly, Rpc::PublishReadonly),
        (options.expand_controller, Rpc::ExpandVolume),
        (options.condition, Rpc::VolumeCondition),
        (options.clone_volume, Rpc::CloneVolume),
    ];
    let had = all.into_iter().filter(|(has, _)| *has);
    let capabilities = had.map(|(_, rpc)| wire::ControllerServiceCapability {
        r#type: Some(controller::Type::Rpc(controller::Rpc {
            r#type: rpc.into(),
        })),
    });
    wire::ControllerGetCapabilitiesResponse {
        capabilities: capabilities.collect(),
    }
}

pub(super) fn of_node(options: &Options) -> wire::NodeGetCapabilitiesResponse {
    use NodeType as Rpc;
    let all = [
        (options.stage, Rpc::StageUnstageVolume),
        (options.node_single_node_modes, Rpc::SingleNodeMultiWriter),
        (options.stats, Rpc::GetVolumeStats),
        (options.condition, Rpc::VolumeCondition),
        (options.expand_node, Rpc::ExpandVolume),
        (options.mount_group, Rpc::VolumeMountGroup),
    ];
    let had = all.into_iter().filter(|(has, _)| *has);
    let capabilities = had.map(|(_, rpc)| wire::NodeServiceCapability {
        r#type: Some(node::Type::Rpc(node::Rpc { r#type: rpc.into() })),
    });
    wire::NodeGetCapabilitiesResponse {
        capabilities: capabilities.collect(),
    }
}
