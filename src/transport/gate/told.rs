// SPDX-License-Identifier: Apache-2.0
//! Tells a peer why it is refused: its every request is answered with the status,
//! by a server that knows nothing else and lasts for seconds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tonic::Status;

/// Peers that are told at the same time; more are hung up on.
const AT_A_TIME: usize = 16;

/// How long one may listen.
const FOR: Duration = Duration::from_secs(2);

/// Tells peers why they are refused.
#[derive(Clone)]
pub(super) struct Teller(Arc<Semaphore>);

impl Default for Teller {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Teller {
    pub(super) fn tell<S>(&self, stream: S, why: Status)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let answer: Response<Empty<Bytes>> = why.clone().into_http();
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http2::Builder::new(TokioExecutor::new());
            server
                .timer(TokioTimer::new())
                .max_concurrent_streams(1)
                .max_header_list_size(super::HEADERS);
            let served = server.serve_connection(TokioIo::new(stream), answer);
            let _ = tokio::time::timeout(FOR, served).await;
            drop(place);
        });
    }
}
