// SPDX-License-Identifier: Apache-2.0
//! `/metrics` and `/healthz` over HTTP.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::error::{Error, Result};

/// A client that sends no complete request within this long is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// A client that does not take its answer within this long is cut off.
const DEADLINE: Duration = Duration::from_secs(30);

/// Clients at a time. More wait in the kernel, whose queue has a bound; each has its
/// turn, since each is cut off in time.
const CLIENTS: usize = 64;

/// The bytes of a request: its line and its headers, for a body is not read.
const MAX_REQUEST: usize = 16 << 10;

/// Listens, and serves until the shutdown.
pub async fn serve(
    listen: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<()> {
    let listener = TcpListener::bind(listen).await.map_err(|e| {
        Error::precondition(format!("cannot listen on {listen} for metrics")).with_source(e)
    })?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely: wait for some to close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let metrics = Arc::clone(&metrics);
            let answer = service_fn(move |request| {
                let answer = respond(&request, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_DEADLINE)
                    .max_buf_size(MAX_REQUEST)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer);
                match tokio::time::timeout(DEADLINE, served).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("metrics client: {error}"),
                    Err(_) => tracing::debug!("metrics client: it does not take its answer"),
                }
                drop(place);
            });
        }
    });
    Ok(())
}

fn respond<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    }
    match request.uri().path() {
        "/metrics" => match metrics.text() {
            Ok(text) => {
                let mut response = Response::new(Full::new(Bytes::from(text)));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static(
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    ),
                );
                response
            }
            Err(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics cannot be encoded\n",
            ),
        },
        // Alive is not ready: a runtime that is away is no reason to be restarted.
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if metrics.is_ready() => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the runtime's NRI is not connected and synchronized\n",
        ),
        _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, metrics: &Metrics) -> StatusCode {
        let request = Request::builder().uri(path).body(()).unwrap();
        respond(&request, metrics).status()
    }

    #[test]
    fn ready_means_that_the_runtime_is_synchronized() {
        let metrics = Metrics::default();
        assert_eq!(get("/healthz", &metrics), 200);
        assert_eq!(get("/readyz", &metrics), 503);
        metrics.nri(true);
        assert_eq!(get("/readyz", &metrics), 200);
        assert_eq!(get("/metrics", &metrics), 200);
        assert_eq!(get("/x", &metrics), 404);
    }
}
