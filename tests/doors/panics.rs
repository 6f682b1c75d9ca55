// SPDX-License-Identifier: Apache-2.0
//! A handler that panics.

use actor_volumes::transport::{Limits, Refused};
use tonic::Code;

use crate::hall::{Hall, container};

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_request_and_nothing_else() {
    let hall = Hall::open(Limits {
        requests: 8,
        ..Limits::default()
    })
    .await;
    let client = hall.client().await;
    let mut other = client.clone();
    let other = tokio::spawn(async move { other.check_container(container("waits")).await });
    hall.service.have_come(1).await;
    // More often than there are places: none is lost with it.
    for _ in 0..20 {
        let broken = client.clone().check_container(container("breaks")).await;
        let broken = broken.err().unwrap();
        assert_eq!(broken.code(), Code::Internal);
        assert!(!broken.message().contains("only the log"), "{broken:?}");
    }
    client.clone().check_container(container("")).await.unwrap();
    hall.service.go.add_permits(1);
    other.await.unwrap().unwrap();
    assert_eq!(hall.counted.refused(), [Refused::Panic; 20]);
}
