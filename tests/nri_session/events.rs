// SPDX-License-Identifier: Apache-2.0
//! What the runtime tells and asks while a session lasts.

use std::{sync::Arc, time::Duration};

use actor_volumes::{
    error::Error,
    proto::nri::{
        ContainerAdjustment, CreateContainerRequest, Event, Mount, PodSandbox,
        RunPodSandboxRequest, ValidateContainerAdjustmentRequest,
    },
};
use prost::Message;
use testkit::nri::{Behaviour, Runtime, Version};

use crate::{
    ALL_VERSIONS, PLUGIN,
    recorder::{self, House, Recorder, container, mount, pod},
};

#[tokio::test]
async fn every_event_reaches_the_plugin_with_every_version() {
    for version in ALL_VERSIONS {
        let house = House::new();
        let runtime = Runtime::listen(house.dir(), version);
        let session = house.start(Recorder::default());
        let plugin = runtime.wait_plugin().await;
        assert_eq!(plugin.name(), "10-volumes");

        let (p, c) = (|| pod("p"), || container("p", "c"));
        plugin.run_pod_sandbox(p()).await.unwrap();
        plugin.create_container(p(), c()).await.ok().unwrap();
        plugin.post_create_container(p(), c()).await.unwrap();
        plugin.start_container(p(), c()).await.unwrap();
        plugin.post_start_container(p(), c()).await.unwrap();
        plugin.stop_container(p(), c()).await.unwrap();
        plugin.remove_container(p(), c()).await.unwrap();
        plugin.stop_pod_sandbox(p()).await.unwrap();
        plugin.remove_pod_sandbox(p()).await.unwrap();

        let expected = [
            "run p",
            "create c",
            "created c",
            "starting c",
            "started c",
            "stopped c",
            "removed c",
            "stop p",
            "remove p",
        ];
        let seen = session.plugin.seen();
        assert_eq!(seen[2..], expected, "{version:?}");
        assert!(!plugin.fell_back_to_state_change());
        session.stop().await;
    }
}

/// Trap 1: the double drops a connection on a frame of more than 4096 bytes.
#[tokio::test]
async fn a_long_adjustment_goes_out_in_frames_that_go_can_read() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let mounts: Vec<Mount> = (0..500)
        .map(|n| mount(&format!("/volumes/{n:04}"), &"s".repeat(300)))
        .collect();
    let answer = actor_volumes::nri::adjust(mounts, Vec::new());
    assert!(answer.encoded_len() > 150_000);
    let session = house.start(Recorder::default().creates(move |_, _| {
        let answer = answer.clone();
        Box::pin(async move { Ok(answer) })
    }));
    let plugin = runtime.wait_plugin().await;
    let got = plugin.create_container(pod("p"), container("p", "c")).await;
    assert_eq!(got.ok().unwrap().mounts.len(), 500);
    assert_eq!(plugin.why_closed(), None);
    session.stop().await;
}

#[tokio::test]
async fn both_the_dedicated_rpc_and_state_change_reach_the_same_handler() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    plugin.run_pod_sandbox(pod("p")).await.unwrap();
    let event = Event::RunPodSandbox as i32;
    let changed = plugin.state_change(event, Some(pod("q")), None).await;
    changed.unwrap();
    assert_eq!(session.plugin.seen_with("run"), ["run p", "run q"]);
}

#[tokio::test]
async fn unknown_events_and_updates_are_answered_ok() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default().wants(recorder::every_event()));
    let plugin = runtime.wait_plugin().await;
    for number in [-1, 0, 8, 12, 15, 99] {
        let changed = plugin.state_change(number, Some(pod("p")), None).await;
        changed.unwrap();
    }
    for event in [
        Event::UpdateContainer,
        Event::PostUpdateContainer,
        Event::UpdatePodSandbox,
        Event::PostUpdatePodSandbox,
    ] {
        let told = plugin.notify(event, pod("p"), Some(container("p", "c")));
        told.await.unwrap();
    }
    plugin.call(PLUGIN, "Shutdown", Vec::new()).await.unwrap();
    let request = ValidateContainerAdjustmentRequest::default();
    let verdict = plugin.validate_container_adjustment(request).await;
    assert!(!verdict.ok().unwrap().reject);
    assert_eq!(session.plugin.seen().len(), 2, "nothing but the start");
}

#[tokio::test]
async fn an_unknown_method_or_service_is_unimplemented() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    for (service, method) in [(PLUGIN, "Teleport"), ("somebody.Else", "RunPodSandbox")] {
        let status = plugin.call(service, method, Vec::new()).await.unwrap_err();
        assert_eq!(status.code, 12, "{}", status.message);
    }
    assert_eq!(session.plugin.seen().len(), 2);
}

#[tokio::test]
async fn an_error_reaches_the_runtime_with_its_code_and_all_causes() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_1);
    let session = house.start(Recorder::default().creates(|_, _| {
        let cause = std::io::Error::other("driver says no");
        let error = Error::unavailable("volume vol1 is not ready").with_source(cause);
        Box::pin(async move { Err(error) })
    }));
    let plugin = runtime.wait_plugin().await;
    let refused = plugin.create_container(pod("p"), container("p", "c")).await;
    let status = refused.err().unwrap();
    assert_eq!(status.code, 14);
    assert_eq!(status.message, "volume vol1 is not ready: driver says no");
    assert!(plugin.is_connected());
    session.stop().await;
}

#[tokio::test]
async fn a_creation_that_hangs_is_refused_before_the_runtime_would_drop_the_plugin() {
    let house = House::new();
    let manners = Behaviour {
        request_timeout: Duration::from_millis(500),
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_3, manners);
    let session = house.start(Recorder::default().creates(|_, _| Box::pin(std::future::pending())));
    let plugin = runtime.wait_plugin().await;
    let refused = plugin.create_container(pod("p"), container("p", "c")).await;
    let status = refused.err().unwrap();
    assert_eq!(status.code, 14, "{}", status.message);
    assert!(status.message.contains("retry"), "{}", status.message);
    assert!(plugin.is_connected(), "{:?}", plugin.why_closed());
    session.stop().await;
}

#[tokio::test]
async fn the_deadline_is_that_of_the_request_less_a_margin() {
    let house = House::new();
    let manners = Behaviour {
        request_timeout: Duration::from_secs(20),
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_3, manners);
    let session = house.start(Recorder::default().creates(|_, deadline| {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let error = Error::internal(left.as_secs().to_string());
        Box::pin(async move { Err(error) })
    }));
    let plugin = runtime.wait_plugin().await;
    let told = plugin.create_container(pod("p"), container("p", "c")).await;
    assert_eq!(told.err().unwrap().message, "17");
    session.stop().await;
}

#[tokio::test]
async fn a_panic_in_the_plugin_refuses_a_creation_and_keeps_a_notification_ok() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default().creates(|_, _| panic!("on purpose")));
    let plugin = runtime.wait_plugin().await;
    let refused = plugin.create_container(pod("p"), container("p", "c")).await;
    assert_eq!(refused.err().unwrap().code, 13);
    let stopped = plugin.stop_container(pod("p"), container("p", "panic"));
    stopped.await.unwrap();
    plugin.stop_pod_sandbox(pod("p")).await.unwrap();
    assert_eq!(session.plugin.seen().last().unwrap(), "stop p");
}

#[tokio::test]
async fn a_slow_creation_holds_up_nothing_else() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let session = house.start(Recorder::default().creates(move |_, _| {
        let opened = opened.clone();
        Box::pin(async move {
            opened.notified().await;
            Ok(ContainerAdjustment::default())
        })
    }));
    let plugin = runtime.wait_plugin().await;
    let slow = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.create_container(pod("p"), container("p", "c")).await }
    });
    session.plugin.wait_for("create c", 1).await;
    for n in 0..20 {
        let told = plugin.stop_pod_sandbox(pod(&format!("q{n}")));
        told.await.unwrap();
    }
    assert!(!slow.is_finished());
    gate.notify_one();
    slow.await.unwrap().ok().unwrap();
    session.stop().await;
}

#[tokio::test]
async fn a_stop_is_told_after_the_creation_that_it_undoes() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_1);
    let session = house.start(Recorder::default().creates(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(ContainerAdjustment::default())
        })
    }));
    let plugin = runtime.wait_plugin().await;
    // The runtime gives up on each creation at once: the undo is right behind it.
    for n in 0..50_u32 {
        let request = CreateContainerRequest {
            pod: Some(pod("p")),
            container: Some(container("p", &format!("c{n}"))),
        };
        let stream = 100_001 + 4 * n;
        let create = recorder::request_bytes(stream, PLUGIN, "CreateContainer", &request);
        let stop = recorder::request_bytes(stream + 2, PLUGIN, "StopContainer", &request);
        plugin.send_to_plugin(&[create, stop].concat()).await;
    }
    session.plugin.wait_for("stopped", 50).await;
    session.plugin.wait_for("create ", 50).await;
    let seen = session.plugin.seen();
    for n in 0..50 {
        let at = |text: String| seen.iter().position(|s| *s == text).unwrap();
        assert!(at(format!("create c{n}")) < at(format!("stopped c{n}")));
    }
}

#[tokio::test]
async fn a_thousand_events_come_in_order() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    // All at once, without waiting for answers: written in one order, and so
    // must they be told.
    let mut bytes = Vec::new();
    for n in 0..1000_u32 {
        let request = RunPodSandboxRequest {
            pod: Some(pod(&format!("p{n}"))),
        };
        bytes.extend(recorder::request_bytes(
            100_001 + 2 * n,
            PLUGIN,
            "RunPodSandbox",
            &request,
        ));
    }
    for piece in bytes.chunks(5000) {
        plugin.send_to_plugin(piece).await;
    }
    session.plugin.wait_for("run", 1000).await;
    let expected: Vec<String> = (0..1000).map(|n| format!("run p{n}")).collect();
    assert_eq!(session.plugin.seen_with("run"), expected);
    assert_eq!(plugin.why_closed(), None);
}

#[tokio::test]
async fn a_pod_with_a_mebibyte_of_annotations_arrives_whole() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_1);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    let annotations = (0..64).map(|n| (format!("key-{n}"), "v".repeat(16 << 10)));
    let big = PodSandbox {
        annotations: annotations.collect(),
        ..pod("big")
    };
    plugin.run_pod_sandbox(big).await.unwrap();
    let seen = session.plugin.seen_with("annotations");
    assert_eq!(seen, [format!("annotations: {}", 1 << 20)]);
}

#[tokio::test]
async fn an_oversized_request_is_refused_and_the_session_goes_on() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_1);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    let status = plugin.call(PLUGIN, "RunPodSandbox", vec![0; 5 << 20]).await;
    assert_eq!(status.unwrap_err().code, 8);
    plugin.run_pod_sandbox(pod("next")).await.unwrap();
    assert_eq!(session.plugin.seen_with("run"), ["run next"]);
}
