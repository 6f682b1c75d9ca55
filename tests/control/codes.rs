// SPDX-License-Identifier: Apache-2.0
//! Each gRPC code at each call of the control plane: what is repeated, what is
//! not, and what people read.

use std::time::{Duration, Instant};

use actor_volumes::{
    control::{Settings, lifecycle::Pace},
    error::Kind,
    proto::api,
};
use testkit::csi::{Backend, CsiDriver, Fault, Options};
use tonic::Code;

use crate::bench::Bench;

/// The codes of the specification, as people read them.
const CODES: [(Code, &str); 16] = [
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

/// Answers that leave open whether the call was carried out.
fn leaves_open(rpc: &str, code: Code) -> bool {
    match code {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => true,
        // "No room" ends a create; to an attach it may mean "too busy".
        Code::ResourceExhausted => rpc.starts_with("Controller"),
        _ => false,
    }
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        attach: true,
        ..Options::new(Backend::Memory)
    };
    let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
    let settings = Settings {
        pace: Pace {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(40),
        },
        ..Settings::default()
    };
    let mut bench = Bench::over(dir, driver, settings).await;
    bench.catalog().await;
    bench
}

/// What goes wrong with the actor's only volume, once something does.
async fn trouble(bench: &mut Bench, name: &str) -> api::Trouble {
    let start = Instant::now();
    loop {
        let volume = bench.show(name).await.unwrap().volumes.remove(0);
        let of_attachment = volume.attachments.into_iter().find_map(|a| a.trouble);
        if let Some(trouble) = volume.trouble.or(of_attachment) {
            return trouble;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no trouble is shown"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often the call is made while it fails with this code.
async fn calls(bench: &Bench, rpc: &str, before: usize) -> usize {
    let start = Instant::now();
    loop {
        let calls = bench.driver.count(rpc) - before;
        if calls >= 3 || start.elapsed() > Duration::from_millis(150) {
            return calls;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn reads_well(trouble: &api::Trouble, rpc: &str, name: &str) {
    for part in [
        rpc,
        "CSI driver testkit.actor-volumes.dev answered",
        name,
        "told to",
    ] {
        assert!(
            trouble.message.contains(part),
            "{part:?} is missing: {}",
            trouble.message
        );
    }
}

/// The way forward: an open answer is asked for again by itself, a final one not
/// before a verb asks.
async fn forward(rpc: &'static str) {
    let mut bench = bench().await;
    for (code, name) in CODES {
        let actor = name.to_lowercase().replace('_', "-");
        let before = bench.driver.count(rpc);
        if rpc != "CreateVolume" {
            bench.create(&actor, true).await.unwrap();
        }
        bench.driver.fault(rpc, Fault::fail(code));
        if rpc == "CreateVolume" {
            bench.create(&actor, false).await.unwrap();
        } else {
            let resume = api::ResumeActorRequest {
                timeout_ms: 1,
                ..crate::bench::resume(&actor)
            };
            bench.client.resume_actor(resume).await.err().unwrap();
        }
        let told = trouble(&mut bench, &actor).await;
        reads_well(&told, rpc, name);
        let open = leaves_open(rpc, code);
        assert_eq!(
            told.next_try.is_empty(),
            !open,
            "{rpc} {name}: {}",
            told.message
        );
        let calls = calls(&bench, rpc, before).await;
        if open {
            assert!(calls >= 3, "{rpc} {name}: {calls} calls");
        } else {
            assert_eq!(calls, 1, "{rpc} {name}");
        }
        // Whatever it was, it is over when the driver agrees and a verb asks.
        bench.driver.clear_faults();
        bench.resume(&actor).await.unwrap();
        bench.suspend(&actor, true).await.unwrap();
        bench.delete(&actor, true).await.unwrap();
    }
    bench.is_clean();
}

/// The way back is repeated whatever the answer: nobody else would free what is
/// left.
async fn back(rpc: &'static str) {
    let mut bench = bench().await;
    for (code, name) in CODES {
        let actor = name.to_lowercase().replace('_', "-");
        bench.create(&actor, true).await.unwrap();
        bench.resume(&actor).await.unwrap();
        let before = bench.driver.count(rpc);
        bench.driver.fault(rpc, Fault::fail(code));
        if rpc == "DeleteVolume" {
            bench.suspend(&actor, true).await.unwrap();
            bench.delete(&actor, false).await.unwrap();
        } else {
            bench.suspend(&actor, false).await.unwrap();
        }
        let told = trouble(&mut bench, &actor).await;
        reads_well(&told, rpc, name);
        assert!(!told.next_try.is_empty(), "{rpc} {name}: {}", told.message);
        let calls = calls(&bench, rpc, before).await;
        assert!(calls >= 3, "{rpc} {name}: {calls} calls");
        bench.driver.clear_faults();
        if rpc != "DeleteVolume" {
            bench.suspend(&actor, true).await.unwrap();
        }
        // One that is being deleted may be gone by now.
        match bench.delete(&actor, true).await {
            Err(error) if rpc == "DeleteVolume" => assert_eq!(error.kind(), Kind::NotFound),
            done => done.unwrap(),
        }
    }
    bench.is_clean();
}

#[tokio::test]
async fn each_answer_to_create_volume_has_its_consequence() {
    forward("CreateVolume").await;
}

#[tokio::test]
async fn each_answer_to_controller_publish_has_its_consequence() {
    forward("ControllerPublishVolume").await;
}

#[tokio::test]
async fn no_answer_stops_controller_unpublish_from_being_repeated() {
    back("ControllerUnpublishVolume").await;
}

#[tokio::test]
async fn no_answer_stops_delete_volume_from_being_repeated() {
    back("DeleteVolume").await;
}
