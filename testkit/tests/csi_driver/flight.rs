// SPDX-License-Identifier: Apache-2.0
//! One call in flight for a volume: who is guilty, and who is not.

use std::time::Duration;

use actor_volumes_testkit::csi::Fault;
use tonic::Code;

use crate::bench::Bench;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn two_calls_at_once_break_a_rule() {
    let bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    bench.driver.fault("NodeStageVolume", Fault::delay(SHORT));
    let mut other = caller.clone();
    let (first, second) = tokio::join!(caller.stage(), other.stage());
    assert!(first.is_ok() != second.is_ok(), "one of them is the first");
    let broken = bench.driver.violations();
    assert!(
        broken.len() == 1 && broken[0].contains("in flight"),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_caller_who_has_given_up_may_call_again() {
    let bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    bench.driver.fault("NodeStageVolume", Fault::delay(SHORT));
    let first = tokio::time::timeout(Duration::from_millis(100), caller.stage()).await;
    assert!(first.is_err(), "it has waited");
    assert_eq!(caller.stage().await.err().unwrap().code(), Code::Aborted);
    tokio::time::sleep(SHORT).await;
    caller.stage().await.unwrap();
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn a_caller_whose_end_is_heard_of_late_is_not_guilty() {
    let bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    caller.create().await.unwrap();
    bench.driver.fault("NodeStageVolume", Fault::delay(SHORT));
    let mut late = caller.clone();
    let first = tokio::spawn(async move { late.stage().await });
    while bench.driver.count("NodeStageVolume") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The second call overtakes the news that nobody waits for the first one,
    // whose answer is ready in between.
    assert_eq!(caller.stage().await.err().unwrap().code(), Code::Aborted);
    tokio::time::sleep(SHORT + Duration::from_millis(200)).await;
    first.abort();
    assert!(
        first.await.err().unwrap().is_cancelled(),
        "it was answered at once"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.assert_no_rule_broken();
}

#[tokio::test]
async fn calls_on_two_volumes_may_be_in_flight() {
    let bench = Bench::new(|_| {}).await;
    let mut caller = bench.caller.clone();
    let mut other = caller.clone();
    bench.driver.fault("CreateVolume", Fault::delay(SHORT));
    let mut request = other.creation();
    request.name = "av-2".into();
    let (one, two) = tokio::join!(caller.create(), other.create_as(request));
    assert_ne!(one.unwrap().volume_id, two.unwrap().volume_id);
    bench.assert_no_rule_broken();
}
