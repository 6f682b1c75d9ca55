// SPDX-License-Identifier: Apache-2.0
//! A session from registration over the runtime's state to its end, and the next one.

use std::time::Duration;

use actor_volumes::nri::{EventMask, Status};
use testkit::nri::{Behaviour, Runtime, Sync, Version};

use crate::recorder::{self, House, Recorder, container, pod};

#[tokio::test]
async fn the_runtime_introduces_itself_before_its_state_is_told() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let mut session = house.start(Recorder::default());
    runtime.wait_plugin().await;
    let info = session.wait_synchronized().await;
    assert_eq!((&*info.name, &*info.version), ("containerd", "v2.3.0"));
    assert_eq!(info.nri_version, "v0.12.0");
    assert_eq!(info.request_timeout, Duration::from_secs(2));
    assert_eq!(
        session.plugin.seen(),
        [
            "configured by containerd v2.3.0",
            "state: 0 pods, 0 containers"
        ]
    );
}

#[tokio::test]
async fn timeouts_that_an_old_runtime_does_not_tell_have_their_defaults() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_1_7);
    let mut session = house.start(Recorder::default());
    runtime.wait_plugin().await;
    let info = session.wait_synchronized().await;
    assert_eq!(info.request_timeout, Duration::from_secs(2));
    assert_eq!(info.registration_timeout, Duration::from_secs(5));
    assert_eq!(info.nri_version, "");
}

#[tokio::test]
async fn configure_may_come_before_registration_is_answered() {
    let house = House::new();
    let manners = Behaviour {
        configure_first: true,
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_3, manners);
    let mut session = house.start(Recorder::default());
    runtime.next_outcome().await.ok().unwrap();
    session.wait_synchronized().await;
}

#[tokio::test]
async fn events_beyond_what_the_runtime_knows_are_not_asked_for() {
    for (version, expected) in [
        (Version::CONTAINERD_1_7, 0x07ff),
        (Version::CONTAINERD_2_1, 0x07ff),
        (Version::CONTAINERD_2_2, 0x3fff),
        (Version::CONTAINERD_2_3, 0x3fff),
    ] {
        let house = House::new();
        let runtime = Runtime::listen(house.dir(), version);
        let session = house.start(Recorder::default().wants(recorder::every_event()));
        let plugin = runtime.next_outcome().await.ok().unwrap();
        assert_eq!(plugin.events(), expected, "{version:?}");
        session.stop().await;
    }
}

#[tokio::test]
async fn an_empty_mask_is_never_sent_because_it_means_everything() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let mut session = house.start(Recorder::default().wants(EventMask::default()));
    let why = runtime.next_outcome().await.err().unwrap();
    assert!(why.contains("code 9"), "{why}");
    assert!(why.contains("none of the events"), "{why}");
    let why = session.wait_disconnected().await;
    assert!(why.contains("none of the events"), "{why}");
}

#[tokio::test]
async fn a_state_told_in_parts_is_put_together() {
    let house = House::new();
    let manners = Behaviour {
        sync: Sync::Chunks(2),
        pods: (0..5).map(|n| pod(&format!("p{n}"))).collect(),
        containers: (0..9).map(|n| container("p0", &format!("c{n}"))).collect(),
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_1, manners);
    let mut session = house.start(Recorder::default());
    runtime.next_outcome().await.ok().unwrap();
    session.wait_synchronized().await;
    let states = session.plugin.seen_with("state:");
    assert_eq!(states, ["state: 5 pods, 9 containers"]);

    // The next connection starts from nothing.
    runtime.drop_plugin();
    runtime.wait_plugin().await;
    session.plugin.wait_for("state:", 2).await;
    let states = session.plugin.seen_with("state:");
    assert_eq!(states[1], "state: 5 pods, 9 containers");
}

#[tokio::test]
async fn registered_but_not_synchronized_is_not_healthy() {
    let house = House::new();
    let manners = Behaviour {
        sync: Sync::Never,
        ..Behaviour::default()
    };
    let _runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_2, manners);
    let session = house.start(Recorder::default());
    session.plugin.wait_for("configured", 1).await;
    // It waits as long as it takes: registering again would not help.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(*session.status.borrow(), Status::Connected);
    assert_eq!(session.plugin.seen().len(), 1);
}

#[tokio::test]
async fn a_runtime_that_falls_silent_within_its_state_is_left_and_tried_again() {
    let house = House::new();
    let manners = Behaviour {
        sync: Sync::FirstChunkOnly,
        request_timeout: Duration::from_millis(60),
        pods: vec![pod("a"), pod("b")],
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_2, manners);
    let mut session = house.start(Recorder::default());
    let why = session.wait_disconnected().await;
    assert!(why.contains("a part of its state"), "{why}");
    runtime.next_outcome().await.err().unwrap();
    session.plugin.wait_for("configured", 2).await;
    assert!(session.plugin.seen_with("state:").is_empty());
}

#[tokio::test]
async fn frames_of_unknown_connections_are_ignored() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    for id in [0, 3, u32::MAX] {
        plugin.send_frame(id, b"whatever").await;
    }
    plugin.run_pod_sandbox(pod("p")).await.unwrap();
    assert_eq!(session.plugin.seen_with("run"), ["run p"]);
}

#[tokio::test]
async fn a_frame_of_an_impossible_length_ends_the_session() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let mut session = house.start(Recorder::default());
    let plugin = runtime.wait_plugin().await;
    plugin.send_bytes(&[0, 0, 0, 1, 255, 255, 255, 255]).await;
    let why = session.wait_disconnected().await;
    assert!(why.contains("out of step"), "{why}");
    runtime.wait_plugin().await;
}

#[tokio::test]
async fn the_plugin_comes_back_when_the_runtime_does() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_1_7);
    let mut session = house.start(Recorder::default());
    runtime.wait_plugin().await;
    session.wait_synchronized().await;

    drop(runtime);
    let why = session.wait_disconnected().await;
    assert!(why.contains("closed"), "{why}");
    session.plugin.wait_for("disconnected", 1).await;

    // It comes back as a newer version, with another state.
    let manners = Behaviour {
        pods: vec![pod("old")],
        ..Behaviour::default()
    };
    let runtime = Runtime::listen_with(house.dir(), Version::CONTAINERD_2_3, manners);
    let plugin = runtime.wait_plugin().await;
    plugin.run_pod_sandbox(pod("new")).await.unwrap();
    let info = session.wait_synchronized().await;
    assert_eq!(info.version, "v2.3.0");
    assert_eq!(
        session.plugin.seen()[2..],
        [
            "disconnected",
            "configured by containerd v2.3.0",
            "state: 1 pods, 0 containers",
            "run new"
        ]
    );
}

#[tokio::test]
async fn a_socket_that_is_missing_or_deserted_is_named_with_what_to_do() {
    let house = House::new();
    let mut session = house.start(Recorder::default());
    let why = session.wait_disconnected_with("does not exist").await;
    let socket = Runtime::socket_in(house.dir());
    assert!(why.contains(socket.to_str().unwrap()), "{why}");
    assert!(why.contains("disable = false"), "{why}");

    drop(Runtime::listen(house.dir(), Version::CONTAINERD_2_3));
    let why = session.wait_disconnected_with("nobody listens").await;
    assert!(why.contains("enable_nri = true"), "{why}");
    assert!(session.plugin.seen().is_empty());
}

#[tokio::test]
async fn a_registration_that_is_refused_says_why() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let mut session = house.start_as("no spaces", "10", Recorder::default());
    let why = runtime.next_outcome().await.err().unwrap();
    assert!(why.contains("invalid plugin name"), "{why}");
    let why = session.wait_disconnected().await;
    assert!(why.contains("10-no spaces"), "{why}");
}

#[tokio::test]
async fn shutting_down_refuses_running_creations_and_closes_the_connection() {
    let house = House::new();
    let runtime = Runtime::listen(house.dir(), Version::CONTAINERD_2_3);
    let session = house.start(Recorder::default().creates(|_, _| Box::pin(std::future::pending())));
    let plugin = runtime.wait_plugin().await;
    let creation = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.create_container(pod("p"), container("p", "c")).await }
    });
    session.plugin.wait_for("create c", 1).await;
    let recorder = session.stop().await;
    // Without an answer the runtime would create the container without its mounts.
    let status = creation.await.unwrap().err().unwrap();
    assert_eq!(status.code, 14, "{}", status.message);
    plugin.wait_closed().await;
    assert_eq!(recorder.seen().last().unwrap(), "disconnected");
}
