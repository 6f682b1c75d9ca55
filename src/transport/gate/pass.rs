// SPDX-License-Identifier: Apache-2.0
//! What every request passes before its handler sees it, and what a handler that
//! panics leaves behind.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame, SizeHint},
};
use tonic::{
    Status,
    body::Body,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::{
    super::limits::{Kind, Refused},
    Gate,
    held::Caller,
    peer::Peer,
    turns::Waiting,
};

/// The bytes of gRPC before a message.
const PREFIX: usize = 5;

/// Puts a door before the services of a server.
#[derive(Clone)]
pub struct GateLayer(pub(super) Gate);

/// Services behind a door.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.0.clone(),
            inner,
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        // The one that is ready is the one to call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let gate = self.gate.clone();
        Box::pin(async move {
            let answer = pass(&gate, request, inner).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

async fn pass<S>(
    gate: &Gate,
    request: Request<Body>,
    mut inner: S,
) -> Result<Response<Body>, Status>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let caller = request.extensions().get::<Caller>().cloned();
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let peer = match (&caller, tls) {
        (Some(caller), _) => caller.peer(),
        (None, Some(tls)) => Peer::of(tls.peer_certs().as_deref().map(Vec::as_slice)),
        (None, None) => return Err(Status::permission_denied("nobody knows who calls")),
    };
    let kind = gate.kind(request.uri().path());
    let under_way = caller.as_ref().map(Caller::begin);
    let refused = |why| gate.refuse(&peer, why);
    let waiting = gate.turns().enter(peer.clone(), kind).map_err(refused)?;
    let request = match kind {
        Kind::Line => request,
        // Before its turn: a request whose bytes are late keeps nobody from a place.
        _ => whole(gate, request, &waiting).await.map_err(refused)?,
    };
    let place = waiting.turn().await.map_err(refused)?;
    let answer = Careful(Box::pin(inner.call(request))).await;
    let Some(answer) = answer else {
        return Err(refused(Refused::Panic));
    };
    let Ok(answer) = answer;
    Ok(match kind {
        // The place is kept for as long as the stream lasts.
        Kind::Watches | Kind::Line => answer.map(|body| {
            Body::new(Kept {
                body,
                _kept: (place, under_way),
            })
        }),
        _ => answer,
    })
}

/// The request with all its bytes.
async fn whole(
    gate: &Gate,
    request: Request<Body>,
    waiting: &Waiting,
) -> Result<Request<Body>, Refused> {
    let (head, body) = request.into_parts();
    let limit = gate.limits().request_bytes.saturating_add(PREFIX);
    let read = Limited::new(body, limit).collect();
    match tokio::time::timeout_at(waiting.until(), read).await {
        Ok(Ok(read)) => {
            let body = Body::new(Full::new(read.to_bytes()));
            Ok(Request::from_parts(head, body))
        }
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(Refused::Size),
        // The peer has gone, or broke the protocol: nobody hears the answer.
        Ok(Err(_)) | Err(_) => Err(Refused::Slow),
    }
}

/// A handler. None: it panicked, and is dropped.
struct Careful<F>(Pin<Box<F>>);

impl<F: Future> Future for Careful<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What it has shared is behind locks that bear a panic.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

/// A body that keeps something for as long as it is sent.
struct Kept<T> {
    body: Body,
    _kept: T,
}

impl<T: Send + Unpin> HttpBody for Kept<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
