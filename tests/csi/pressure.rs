// SPDX-License-Identifier: Apache-2.0
//! Slow volumes, and drivers that stop answering: what waits, and what does not.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use actor_volumes::{
    csi::{Driver, DriverConfig, Outcome, Registry},
    error::Kind,
    model::DriverName,
};
use testkit::csi::{Backend, CsiDriver, Fault};

struct Bench {
    dir: tempfile::TempDir,
    server: CsiDriver,
    client: Arc<Driver>,
}

impl Bench {
    async fn new(call_timeout: Duration, max_calls: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("csi.sock");
        let server = CsiDriver::start(&socket, Backend::Memory).await;
        let name: DriverName = "testkit.actor-volumes.dev".parse().unwrap();
        let config = DriverConfig {
            max_calls,
            ..DriverConfig::unix(name.clone(), socket, call_timeout)
        };
        let client = Registry::new(vec![config]).get(&name).unwrap();
        client.capabilities().await.unwrap();
        Self {
            dir,
            server,
            client,
        }
    }

    async fn unpublish(&self, volume: &str) -> Result<(), actor_volumes::csi::CallError> {
        let target = self.dir.path().join(volume);
        self.client.node_unpublish(volume, &target).await
    }

    async fn unstage(&self, volume: &str) -> Result<(), actor_volumes::csi::CallError> {
        self.client.node_unstage(volume, Path::new("/none")).await
    }
}

#[tokio::test]
async fn volumes_that_hang_hold_up_no_other_of_the_driver() {
    let bench = Bench::new(Duration::from_secs(60), 2).await;
    bench.server.fault("NodeUnpublishVolume", Fault::hang());
    let mut stuck = Vec::new();
    for n in 0..8 {
        let (client, target) = (bench.client.clone(), bench.dir.path().join(n.to_string()));
        stuck.push(tokio::spawn(async move {
            client.node_unpublish(&n.to_string(), &target).await
        }));
    }
    // All eight got through to the driver, two at a time.
    let start = Instant::now();
    while bench.server.count("NodeUnpublishVolume") < 8 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "a queue has formed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(stuck.iter().all(|call| !call.is_finished()));
    bench.unstage("other").await.unwrap();
    bench.server.clear_faults();
    for call in stuck {
        call.await.unwrap().unwrap();
    }
    assert!(bench.server.violations().is_empty());
}

#[tokio::test]
async fn a_burst_reaches_the_driver_a_few_calls_at_a_time() {
    let bench = Bench::new(Duration::from_secs(60), 4).await;
    let pause = Duration::from_millis(100);
    bench
        .server
        .fault("NodeUnpublishVolume", Fault::delay(pause));
    let calls: Vec<_> = (0..12)
        .map(|n| {
            let (client, target) = (bench.client.clone(), bench.dir.path().join(n.to_string()));
            tokio::spawn(async move { client.node_unpublish(&n.to_string(), &target).await })
        })
        .collect();
    let mut most = 0;
    while calls.iter().any(|call| !call.is_finished()) {
        let all = bench.server.calls();
        let open = all
            .iter()
            .filter(|c| c.method == "NodeUnpublishVolume" && c.code.is_none());
        most = most.max(open.count());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((1..=4).contains(&most), "{most} at a time");
}

#[tokio::test]
async fn a_driver_that_does_not_answer_even_to_probe_is_called_no_more_until_it_does() {
    let bench = Bench::new(Duration::from_millis(300), 32).await;
    bench.server.fault("NodeUnpublishVolume", Fault::hang());
    bench.server.fault("Probe", Fault::hang());
    for n in 0..3 {
        let error = bench.unpublish(&n.to_string()).await.unwrap_err();
        assert_eq!(error.error.kind(), Kind::DeadlineExceeded);
    }
    let error = bench.unpublish("3").await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Ambiguous);
    assert!(error.to_string().contains("not even to Probe"), "{error}");
    // From here on nothing is sent, and nobody waits.
    let start = Instant::now();
    for n in 4..14 {
        let error = bench.unpublish(&n.to_string()).await.unwrap_err();
        assert_eq!(error.error.kind(), Kind::Unavailable);
    }
    // A deadline each would be three seconds.
    assert!(start.elapsed() < Duration::from_millis(2_500));
    assert_eq!(bench.server.count("NodeUnpublishVolume"), 3);
    bench.server.clear_faults();
    let start = Instant::now();
    while bench.unpublish("x").await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "it stays shut");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_driver_that_answers_to_probe_is_called_though_volumes_of_it_hang() {
    let bench = Bench::new(Duration::from_millis(200), 32).await;
    bench.server.fault("NodeUnpublishVolume", Fault::hang());
    for n in 0..10 {
        let error = bench.unpublish(&n.to_string()).await.unwrap_err();
        assert_eq!(
            error.error.kind(),
            Kind::DeadlineExceeded,
            "call {n}: {error}"
        );
    }
    assert_eq!(bench.server.count("NodeUnpublishVolume"), 10);
    bench.unstage("other").await.unwrap();
}
