// SPDX-License-Identifier: Apache-2.0
//! Peers that send too slowly, or too much.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actor_volumes::transport::{self, Limits, Refused};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tonic::{Code, body::Body, codegen::http};
use tower::{Service, ServiceExt};

use crate::hall::{Hall, SOON, at_last, container};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_refused_and_the_connection_lives() {
    let hall = Hall::open(Limits::default()).await;
    let mut client = hall.client().await;
    let mut fits = container("");
    fits.container_id = "x".repeat((1 << 20) - 100);
    client.check_container(fits.clone()).await.unwrap();
    fits.container_id.push_str(&"x".repeat(100));
    let refused = client.check_container(fits).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(
        refused.message().contains("limits.request_bytes"),
        "{refused:?}"
    );
    client.check_container(container("")).await.unwrap();
    assert_eq!(hall.counted.refused(), [Refused::Size]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused_and_others_are_served() {
    let hall = Hall::open(Limits::default()).await;
    let mut request = tonic::Request::new(container(""));
    let value = "x".repeat(64 << 10).parse().unwrap();
    request.metadata_mut().insert("much", value);
    hall.client()
        .await
        .check_container(request)
        .await
        .err()
        .unwrap();
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
}

/// A body that never ends.
struct Endless;

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_takes_no_place_and_is_given_up() {
    let hall = Hall::open(Limits {
        requests: 8,
        queue_wait: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let slow = transport::connect(&hall.socket, SOON).await.unwrap();
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut slow = slow.clone();
        let request = http::Request::post("http://localhost/actorvolumes.v1.Agent/CheckContainer")
            .header("content-type", "application/grpc")
            .body(Body::new(Endless))
            .unwrap();
        answers.spawn(async move { slow.ready().await?.call(request).await });
    }
    // More than there are places, and others go by.
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap().unwrap();
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    assert_eq!(hall.counted.refused(), [Refused::Slow; 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_begin_to_speak_is_hung_up_on() {
    let hall = Hall::open(Limits {
        first_words: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut silent = UnixStream::connect(&hall.socket).await.unwrap();
    let mut slow = UnixStream::connect(&hall.socket).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(SOON, stream.read_to_end(&mut rest));
        let _ = end.await.expect("it ends");
    }
    at_last("they have gone", || hall.counted.connections() == 0).await;
    // One that has spoken may be silent for longer.
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(hall.counted.connections(), 1);
    client.check_container(container("")).await.unwrap();
}

/// Whatever the bytes are, the door goes on.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_harm_nobody() {
    let hall = Hall::open(Limits::default()).await;
    for seed in 0..50 {
        let mut noise = fastrand::Rng::with_seed(seed);
        let mut stream = UnixStream::connect(&hall.socket).await.unwrap();
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| noise.u8(..)).take(4096).collect();
        if seed % 2 == 0 {
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        // It may have hung up by then.
        let _ = stream.write_all(&bytes).await;
    }
    let mut client = hall.client().await;
    client.check_container(container("")).await.unwrap();
}
