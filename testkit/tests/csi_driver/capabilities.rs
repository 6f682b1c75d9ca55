// SPDX-License-Identifier: Apache-2.0
//! What the driver can, where its options say so.

use actor_volumes::proto::csi as wire;
use actor_volumes_testkit::csi::{Expansion, Options};
use tonic::Code;

use crate::bench::{Bench, MIB, block, map, mount};

fn all(options: &mut Options) {
    options.expansion = Some(Expansion::Online);
    for flag in [
        &mut options.attach,
        &mut options.expand_controller,
        &mut options.expand_node,
        &mut options.stats,
        &mut options.condition,
        &mut options.mount_group,
        &mut options.list,
        &mut options.list_nodes,
        &mut options.publish_readonly,
        &mut options.clone_volume,
    ] {
        *flag = true;
    }
    let zone = [("zone".to_owned(), "1".to_owned())].into();
    options.topologies.insert("node-a".into(), zone);
}

#[tokio::test]
async fn each_option_is_a_capability_and_none_of_them_is_there_by_default() {
    for (change, plugin, controller, node) in [
        (all as fn(&mut Options), 3, 9, 6),
        (|_: &mut Options| (), 1, 2, 2),
    ] {
        let bench = Bench::new(change).await;
        let mut caller = bench.caller.clone();
        let request = wire::GetPluginCapabilitiesRequest {};
        let answer = caller.identity.get_plugin_capabilities(request).await;
        assert_eq!(answer.unwrap().into_inner().capabilities.len(), plugin);
        let request = wire::ControllerGetCapabilitiesRequest {};
        let answer = caller.controller.controller_get_capabilities(request).await;
        assert_eq!(answer.unwrap().into_inner().capabilities.len(), controller);
        let request = wire::NodeGetCapabilitiesRequest {};
        let answer = caller.node.node_get_capabilities(request).await;
        assert_eq!(answer.unwrap().into_inner().capabilities.len(), node);
    }
}

#[tokio::test]
async fn volumes_are_made_where_they_are_required() {
    let zone = |zone: &str| wire::Topology {
        segments: map([("zone", zone)]),
    };
    let bench = Bench::new(|o| {
        for (node, zone) in [("node-a", "1"), ("node-b", "2")] {
            let segments = [("zone".to_owned(), zone.to_owned())].into();
            o.topologies.insert(node.into(), segments);
        }
    })
    .await;
    let mut caller = bench.caller.clone();
    let required = |name: &str, requisite: &[&str], preferred: &[&str]| {
        let topologies = |zones: &[&str]| zones.iter().map(|z| zone(z)).collect();
        wire::CreateVolumeRequest {
            name: name.into(),
            accessibility_requirements: Some(wire::TopologyRequirement {
                requisite: topologies(requisite),
                preferred: topologies(preferred),
            }),
            ..bench.caller.creation()
        }
    };
    let made = caller.create_as(required("a", &["1", "2"], &["2"])).await;
    assert!(made.unwrap().accessible_topology == [zone("2")]);
    let made = caller.create_as(required("b", &["3", "1"], &[])).await;
    assert!(made.unwrap().accessible_topology == [zone("1")]);
    let none = caller.create_as(required("c", &["3"], &[])).await;
    assert_eq!(none.err().unwrap().code(), Code::ResourceExhausted);
    let here = caller.node.node_get_info(wire::NodeGetInfoRequest {}).await;
    assert!(here.unwrap().into_inner().accessible_topology == Some(zone("1")));
    bench.driver.reconfigure(|o| {
        o.wrong_topology = Some([("zone".to_owned(), "9".to_owned())].into());
    });
    let wrong = caller.create_as(required("d", &["1"], &[])).await;
    assert!(wrong.unwrap().accessible_topology == [zone("9")]);
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_node_takes_only_so_many_volumes() {
    let bench = Bench::new(|o| {
        o.attach = true;
        o.max_volumes_per_node = 1;
    })
    .await;
    let (mut one, mut two) = (bench.caller.clone(), bench.caller.clone());
    one.create().await.unwrap();
    let mut request = two.creation();
    request.name = "av-2".into();
    two.create_as(request).await.unwrap();
    one.attach().await.unwrap();
    one.attach().await.unwrap();
    let full = two.attach().await.err().unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted);
    one.detach().await.unwrap();
    two.attach().await.unwrap();
    let info = one.node.node_get_info(wire::NodeGetInfoRequest {}).await;
    assert_eq!(info.unwrap().into_inner().max_volumes_per_node, 1);
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn volumes_grow_and_offline_only_while_nobody_has_them() {
    let bench = Bench::new(|o| {
        all(o);
        o.attach = false;
        o.node_expansion_required = true;
    })
    .await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let grown = caller.expand(64 * MIB).await.unwrap();
    assert_eq!(grown.capacity_bytes, 64 * MIB);
    assert!(grown.node_expansion_required);
    assert_eq!(caller.node_expand(64 * MIB).await.unwrap(), 64 * MIB);
    assert_eq!(bench.driver.capacity(&caller.id), Some(64 * MIB));
    bench
        .driver
        .reconfigure(|o| o.expansion = Some(Expansion::Offline));
    let used = caller.expand(128 * MIB).await.err().unwrap();
    assert_eq!(used.code(), Code::FailedPrecondition);
    caller.unpublish().await.unwrap();
    caller.unstage().await.unwrap();
    caller.expand(128 * MIB).await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn stats_tell_usage_and_health() {
    let bench = Bench::new(|o| {
        o.stats = true;
        o.condition = true;
    })
    .await;
    let mut caller = bench.caller.clone();
    caller.up().await;
    let well = caller.stats().await.unwrap();
    assert_eq!(well.usage[0].total, 32 * MIB);
    assert!(!well.volume_condition.unwrap().abnormal);
    bench.driver.set_abnormal(&caller.id, Some("it smells"));
    let ill = caller.stats().await.unwrap().volume_condition.unwrap();
    assert!(ill.abnormal && ill.message == "it smells");
    bench.driver.set_abnormal(&caller.id, None);
    assert!(
        !caller
            .stats()
            .await
            .unwrap()
            .volume_condition
            .unwrap()
            .abnormal
    );
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn all_volumes_are_listed_page_by_page_with_their_nodes() {
    let bench = Bench::new(|o| {
        o.list = true;
        o.list_nodes = true;
        o.attach = true;
    })
    .await;
    let mut caller = bench.caller.clone();
    for n in 0..5 {
        let mut request = caller.creation();
        request.name = format!("av-{n}");
        caller.create_as(request).await.unwrap();
    }
    caller.attach().await.unwrap();
    let (mut token, mut ids, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = caller.list(2, &token).await.unwrap();
        pages += 1;
        for entry in page.entries {
            let id = entry.volume.unwrap().volume_id;
            let nodes = entry.status.unwrap().published_node_ids;
            assert_eq!(nodes.len(), usize::from(id == caller.id));
            ids.push(id);
        }
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((pages, ids), (3, bench.driver.volumes()));
    let everything = caller.list(0, "").await.unwrap();
    assert_eq!(everything.entries.len(), 5);
    for bad in ["nonsense", "from-", "from-6"] {
        let refused = caller.list(2, bad).await.err().unwrap();
        assert_eq!(refused.code(), Code::Aborted, "{bad}");
    }
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn groups_and_block_volumes_are_taken_note_of() {
    let bench = Bench::new(|o| o.mount_group = true).await;
    let mut caller = bench.caller.clone();
    let access = caller.capability.access_type.as_mut();
    if let Some(wire::volume_capability::AccessType::Mount(mount)) = access {
        mount.volume_mount_group = "1234".into();
    }
    caller.up().await;
    assert_eq!(bench.driver.mount_group(&caller.id), Some(1234));
    caller.down().await;

    let mut caller = bench.caller.clone();
    caller.capability = block();
    let mut request = caller.creation();
    request.name = "av-block".into();
    caller.create_as(request).await.unwrap();
    caller.stage().await.unwrap();
    caller.publish().await.unwrap();
    assert!(caller.path("target").is_file());
    caller.down().await;
    assert!(!caller.path("target").exists());
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn capabilities_of_volumes_are_confirmed() {
    let bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    let mode = wire::volume_capability::access_mode::Mode::SingleNodeWriter;
    let mut request = wire::ValidateVolumeCapabilitiesRequest {
        volume_id: caller.id.clone(),
        volume_context: caller.volume_context.clone(),
        volume_capabilities: vec![mount(mode)],
        ..Default::default()
    };
    let controller = &mut caller.controller;
    let answer = controller
        .validate_volume_capabilities(request.clone())
        .await;
    let confirmed = answer.unwrap().into_inner().confirmed.unwrap();
    assert!(confirmed.volume_capabilities == [mount(mode)]);
    request.volume_id = "unknown".into();
    let answer = controller.validate_volume_capabilities(request).await;
    assert_eq!(answer.err().unwrap().code(), Code::NotFound);
}
