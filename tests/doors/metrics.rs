// SPDX-License-Identifier: Apache-2.0
//! The door of the metrics.

use std::{net::SocketAddr, sync::Arc};

use actor_volumes::telemetry::{Metrics, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::hall::SOON;

async fn open() -> SocketAddr {
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let metrics = Arc::new(Metrics::default());
    metrics.doors().refused("socket", "peer");
    serve(address, metrics, CancellationToken::new())
        .await
        .unwrap();
    address
}

async fn get(address: SocketAddr, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    // It may hang up before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer));
    let _ = read.await.expect("it answers or hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_at_doors_is_counted() {
    let text = get(open().await, "").await;
    let line = "actor_volumes_door_refusals_total{door=\"socket\",reason=\"peer\"} 1";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused() {
    let address = open().await;
    let long = format!("much: {}\r\n", "x".repeat(64 << 10));
    let answer = get(address, &long).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(get(address, "").await.starts_with("HTTP/1.1 200"));
}

/// More than there are places for: each is cut off in time, and then there is room.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let address = open().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metr").await.unwrap();
        silent.push(stream);
    }
    assert!(get(address, "").await.starts_with("HTTP/1.1 200"));
}
