// SPDX-License-Identifier: Apache-2.0
//! What goes wrong meanwhile.

use std::{sync::Arc, time::Duration};

use testkit::csi::Fault;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::house::House;

const METHODS: [&str; 9] = [
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "NodeGetInfo",
];

const CODES: [Code; 7] = [
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Unavailable,
    Code::Aborted,
    Code::ResourceExhausted,
    Code::Internal,
    Code::Unknown,
];

/// After how many faults the house is killed, and the driver started again.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) kill: u32,
    pub(crate) restart: u32,
}

/// Makes trouble until it is told to be calm.
pub(crate) async fn make(house: Arc<House>, seed: u64, rate: Rate, calm: CancellationToken) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xbad);
    let mut turn = 0u32;
    loop {
        let pause = Duration::from_millis(rng.u64(20..150));
        tokio::select! {
            () = calm.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        turn += 1;
        if turn.is_multiple_of(rate.kill) {
            house.kill().await;
            continue;
        }
        let mut driver = house.driver.lock().await;
        if turn.is_multiple_of(rate.restart) {
            driver.stop().await;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
            driver.start_again().await;
            continue;
        }
        let method = METHODS[rng.usize(..METHODS.len())];
        let fault = match rng.u8(0..10) {
            0..4 => Fault::fail(CODES[rng.usize(..CODES.len())]).times(rng.u32(1..5)),
            4..7 => Fault::lose_answer().times(rng.u32(1..4)),
            7..9 => Fault::delay(Duration::from_millis(rng.u64(1..300))),
            _ => Fault::hang(),
        };
        driver.fault(method, fault);
        if rng.u8(0..4) == 0 {
            driver.clear_faults();
        }
    }
}
