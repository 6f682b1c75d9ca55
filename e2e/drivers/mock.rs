// SPDX-License-Identifier: Apache-2.0
//! Our control plane against the mock driver of Kubernetes' storage tests: a
//! controller that attaches, lists and grows. It mounts nothing. Started by
//! `e2e/drivers/mock.sh`.

#[path = "../suite/daemon.rs"]
mod daemon;
mod house;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    daemon::{until, until_true, while_true},
    house::{Driver, House, SOON, Test, UNAVAILABLE, note, qualified},
};

const KIND: &str = "mock";
/// What it calls itself, and its one node.
const NAME: &str = "mock.storage.k8s.io";
/// It has these from the beginning.
const ITS_OWN: [&str; 3] = ["1", "2", "3"];
/// What a template of the house asks for.
const MIB64: u64 = 64 << 20;
/// Three listings, one a minute.
const LISTINGS: Duration = Duration::from_secs(240);

const TESTS: [Test; 7] = [
    (
        "a_volume_is_attached_to_the_node_that_the_driver_names_and_detached_before_it_is_deleted",
        a_volume_is_attached_to_the_node_that_the_driver_names_and_detached_before_it_is_deleted,
    ),
    (
        "a_mount_that_is_not_there_is_never_delivered",
        a_mount_that_is_not_there_is_never_delivered,
    ),
    (
        "a_full_node_takes_the_next_volume_when_there_is_room",
        a_full_node_takes_the_next_volume_when_there_is_room,
    ),
    (
        "a_detached_volume_grows_at_the_controller",
        a_detached_volume_grows_at_the_controller,
    ),
    (
        "an_attached_volume_grows_while_it_is_attached",
        an_attached_volume_grows_while_it_is_attached,
    ),
    (
        "what_the_driver_had_before_us_is_nobodys_orphan",
        what_the_driver_had_before_us_is_nobodys_orphan,
    ),
    (
        "a_driver_that_lists_what_is_not_so_loses_no_volume",
        a_driver_that_lists_what_is_not_so_loses_no_volume,
    ),
];

fn main() -> ExitCode {
    // The last takes minutes.
    let long = env::var_os("AV_LONG").is_some();
    let tests = if long {
        &TESTS[..]
    } else {
        &TESTS[..TESTS.len() - 1]
    };
    house::run(tests, start)
}

static HOUSES: AtomicU32 = AtomicU32::new(0);

fn base() -> PathBuf {
    env::var_os("AV_WORK").expect("mock.sh says where").into()
}

fn start() -> House {
    let number = HOUSES.fetch_add(1, Ordering::Relaxed);
    let dir = base().join(number.to_string());
    let socket = dir.join("csi.sock");
    let drivers = [Driver {
        name: NAME,
        table: format!("endpoint = \"unix://{}\"\n", socket.display()),
    }];
    let mut house = House::new(dir, &drivers);
    let program = env::var_os("AV_MOCK").expect("mock.sh says where the driver is");
    house.start_driver(
        "csi-mock",
        Command::new(program)
            .args(["-name", NAME, "-node-expand-required", "-attach-limit=2"])
            .args(["-v=3", "-endpoint"])
            .arg(&socket),
        &socket,
    );
    house.start_serve();
    house.kind(KIND, NAME, "allowVolumeExpansion: true\n");
    house
}

/// One call, as the driver has written it down.
struct Call {
    method: String,
    request: Value,
    response: Value,
    error: String,
}

/// The calls of these methods, in their order.
fn calls(house: &House, methods: &[&str]) -> Vec<Call> {
    let log = fs::read_to_string(house.log("csi-mock")).expect("the driver has a log");
    let call = |line: &str| -> Option<Call> {
        let (_, json) = line.split_once("gRPCCall: ")?;
        let call: Value = serde_json::from_str(json).ok()?;
        let method = call["Method"].as_str()?.rsplit('/').next()?.to_owned();
        methods.contains(&&*method).then(|| Call {
            method,
            request: call["Request"].clone(),
            response: call["Response"].clone(),
            error: call["Error"].as_str().unwrap_or_default().to_owned(),
        })
    };
    log.lines().filter_map(call).collect()
}

const LIFE: [&str; 8] = [
    "CreateVolume",
    "ControllerPublishVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "ControllerUnpublishVolume",
    "DeleteVolume",
];

fn methods(house: &House) -> Vec<String> {
    calls(house, &LIFE).into_iter().map(|c| c.method).collect()
}

fn a_volume_is_attached_to_the_node_that_the_driver_names_and_detached_before_it_is_deleted(
    house: &mut House,
) {
    house.create("a", KIND);
    house.resume("a");
    assert_eq!(house.volume("a")["attachments"][0]["phase"], "Attached");
    let attach = calls(house, &["ControllerPublishVolume"]);
    assert_eq!(attach.len(), 1);
    assert_eq!(attach[0].error, "");
    // Our name of the node is another.
    assert_eq!(attach[0].request["node_id"], NAME);
    house.kill_serve();
    house.start_serve();
    assert_eq!(house.volume("a")["attachments"][0]["phase"], "Attached");
    house.suspend("a");
    house.delete("a");
    let expected = [
        "CreateVolume",
        "ControllerPublishVolume",
        "ControllerUnpublishVolume",
        "DeleteVolume",
    ];
    assert_eq!(methods(house), expected);
    assert!(calls(house, &LIFE).iter().all(|c| c.error.is_empty()));
    let metrics = house.metrics().expect("metrics answer");
    assert!(metrics.contains(NAME), "{metrics}");
}

fn a_mount_that_is_not_there_is_never_delivered(house: &mut House) {
    house.create("a", KIND);
    let annotations = house.resume("a");
    let pod = house.run_pod(&annotations);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let refusal = house.try_create(&pod).expect_err("nothing is mounted");
        assert_eq!(refusal.code, UNAVAILABLE, "{refusal:?}");
    }
    // The driver answered OK, and had what attaching gave.
    let publish = calls(house, &["NodeStageVolume", "NodePublishVolume"]);
    assert!(publish.len() >= 2);
    let attach = calls(house, &["ControllerPublishVolume"]);
    for call in &publish {
        assert_eq!(call.error, "", "{}", call.method);
        assert_eq!(
            call.request["publish_context"],
            attach[0].response["publish_context"]
        );
    }
    house.remove_pod(&pod);
    house.suspend("a");
    house.delete("a");
    let last = methods(house);
    assert_eq!(
        last[last.len() - 4..],
        [
            "NodeUnpublishVolume",
            "NodeUnstageVolume",
            "ControllerUnpublishVolume",
            "DeleteVolume"
        ]
    );
}

fn a_full_node_takes_the_next_volume_when_there_is_room(house: &mut House) {
    for actor in ["a", "b", "c"] {
        house.create(actor, KIND);
    }
    house.resume("a");
    house.resume("b");
    let late = ["actor", "resume", &qualified("c"), "--timeout", "3s"];
    let refusal = house.av(&late).expect_err("the node has room for two");
    note(format!(
        "a third volume for a node that has room for two: {refusal}"
    ));
    assert!(refusal.contains("it allows 2"), "{refusal}");
    house.suspend("a");
    house.resume("c");
    for actor in ["b", "c"] {
        house.suspend(actor);
    }
    for actor in ["a", "b", "c"] {
        house.delete(actor);
    }
}

fn a_detached_volume_grows_at_the_controller(house: &mut House) {
    house.create("a", KIND);
    let volume = house.volume("a");
    assert_eq!(volume["capacityBytes"], MIB64);
    let uid = volume["uid"].as_str().expect("a uid is text");
    house.must(&["volume", "expand", uid, "--capacity", "128Mi"]);
    let grow = until("the controller is asked to grow it", SOON, || {
        calls(house, &["ControllerExpandVolume"]).pop()
    });
    assert_eq!(grow.error, "");
    assert_eq!(grow.response["node_expansion_required"], true);
    let asked = &grow.request["capacity_range"]["required_bytes"];
    assert_eq!(*asked, 2 * MIB64);
    // The node's part waits for a node.
    let volume = house.volume("a");
    assert_eq!(volume["expansion"]["wantedBytes"], 2 * MIB64, "{volume}");
    house.delete("a");
}

fn an_attached_volume_grows_while_it_is_attached(house: &mut House) {
    house.create("a", KIND);
    house.resume("a");
    let volume = house.volume("a");
    let uid = volume["uid"].as_str().expect("a uid is text");
    house.must(&["volume", "expand", uid, "--capacity", "128Mi"]);
    until_true("the controller is asked to grow it", SOON, || {
        calls(house, &["ControllerExpandVolume"]).len() == 1
    });
    // It is on no pod, so that there is nothing to grow on the node yet.
    let volume = house.volume("a");
    assert_eq!(volume["attachments"][0]["phase"], "Attached", "{volume}");
    assert!(calls(house, &["NodeExpandVolume"]).is_empty());
    house.suspend("a");
    house.delete("a");
    assert!(methods(house).ends_with(&["ControllerUnpublishVolume".into(), "DeleteVolume".into()]));
}

fn what_the_driver_had_before_us_is_nobodys_orphan(house: &mut House) {
    house.create("a", KIND);
    let orphans = house.json(&["volume", "orphans"]);
    assert_eq!(calls(house, &["ListVolumes"]).len(), 1);
    let text = orphans.to_string();
    assert!(!text.contains("volumeId"), "{text}");
    house.delete("a");
}

/// Takes minutes, for attachments are compared once in a minute.
fn a_driver_that_lists_what_is_not_so_loses_no_volume(house: &mut House) {
    house.create("a", KIND);
    house.resume("a");
    house.suspend("a");
    // This driver lists its node for every volume, attached or not.
    until_true("the driver is asked for three listings", LISTINGS, || {
        calls(house, &["ListVolumes"]).len() >= 3
    });
    while_true("the volume is there", Duration::from_secs(3), || {
        house.volume("a")["phase"] == "Ready"
    });
    house.resume("a");
    house.suspend("a");
    house.delete("a");
    // What we did not make is not ours to detach or delete.
    for call in calls(house, &["ControllerUnpublishVolume", "DeleteVolume"]) {
        let id = call.request["volume_id"].as_str().expect("an id is text");
        assert!(!ITS_OWN.contains(&id), "{} of {id}", call.method);
    }
}
