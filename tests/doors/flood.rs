// SPDX-License-Identifier: Apache-2.0
//! More requests and connections than there are places.

use std::time::Duration;

use actor_volumes::{
    proto::api::{GetAgentStatusRequest, SetDrainingRequest},
    transport::{Limits, Refused},
};
use tokio::{io::AsyncReadExt, net::UnixStream, task::JoinSet};
use tonic::Code;

use crate::hall::{Hall, SOON, at_last, container};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_keeps_nobody_from_the_guards_question_and_from_a_suspend() {
    let hall = Hall::open(Limits {
        queue_wait: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let client = hall.client().await;
    let mut calls = JoinSet::new();
    for _ in 0..48 {
        let mut client = client.clone();
        calls.spawn(async move { client.check_container(container("waits")).await });
    }
    hall.service.have_come(48).await;

    // The next has no turn, and is told so.
    let refused = client.clone().check_container(container("")).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("64 are under way at most"),
        "{refused:?}"
    );
    assert_eq!(hall.counted.refused(), [Refused::Busy]);

    // Nor does it take a place from those that must not starve.
    let mut asks = client.clone();
    asks.get_agent_status(GetAgentStatusRequest {})
        .await
        .unwrap();
    let mut frees = hall.client().await;
    frees
        .set_draining(SetDrainingRequest::default())
        .await
        .unwrap();

    // One that waits has its turn as soon as there is a place.
    let mut next = client.clone();
    let next = tokio::spawn(async move { next.check_container(container("")).await });
    hall.service.go.add_permits(48);
    // It may have been refused by its deadline: then there is a place now.
    if next.await.unwrap().is_err() {
        client.clone().check_container(container("")).await.unwrap();
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_are_refused_at_once() {
    let hall = Hall::open(Limits {
        requests: 8,
        queue: 3,
        queue_wait: SOON,
        ..Limits::default()
    })
    .await;
    let client = hall.client().await;
    let mut calls = JoinSet::new();
    // Six places and three that wait.
    for _ in 0..6 {
        let mut client = client.clone();
        calls.spawn(async move { client.check_container(container("waits")).await });
    }
    hall.service.have_come(6).await;
    for _ in 0..20 {
        let mut client = client.clone();
        calls.spawn(async move { client.check_container(container("waits")).await });
    }
    for _ in 0..17 {
        let refused = calls.join_next().await.unwrap().unwrap().err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("limits.queue"), "{refused:?}");
    }
    hall.service.go.add_permits(9);
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(hall.counted.refused(), [Refused::Queue; 17]);
}

/// Connections that say nothing, or nothing more, make room for those that do.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_keeps_nobody_out() {
    let hall = Hall::open(Limits {
        connections: 8,
        first_words: SOON,
        ..Limits::default()
    })
    .await;
    let mut busy = hall.client().await;
    let waits = tokio::spawn(async move { busy.check_container(container("waits")).await });
    hall.service.have_come(1).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(UnixStream::connect(&hall.socket).await.unwrap());
        let mut client = hall.client().await;
        client.check_container(container("")).await.unwrap();
    }
    // The oldest were hung up on, and the one with a request was not.
    let mut rest = Vec::new();
    let oldest = tokio::time::timeout(SOON, idle[0].read_to_end(&mut rest));
    let _ = oldest.await.expect("it ends");
    hall.service.go.add_permits(1);
    waits.await.unwrap().unwrap();
    // One comes before another has gone.
    assert!(
        hall.counted.most_connections() <= 12,
        "{}",
        hall.counted.most_connections()
    );
    drop(idle);
    at_last("all have gone", || hall.counted.connections() == 0).await;
    assert!(hall.counted.refused().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_connection_is_busy_the_next_is_told() {
    let hall = Hall::open(Limits {
        connections: 8,
        ..Limits::default()
    })
    .await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = hall.client().await;
        calls.spawn(async move { client.check_container(container("waits")).await });
    }
    hall.service.have_come(8).await;
    let refused = hall.client().await.check_container(container("")).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("limits.connections"),
        "{refused:?}"
    );
    assert_eq!(hall.counted.refused(), [Refused::Connections]);
    hall.service.go.add_permits(8);
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
}
