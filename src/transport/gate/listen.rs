// SPDX-License-Identifier: Apache-2.0
//! Connections that were let in.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    net::{TcpStream, UnixListener},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{Gate, held::Held, peer::Peer};

/// Connections whose peer has proven itself.
pub type Incoming = ReceiverStream<io::Result<Held<TlsStream<TcpStream>>>>;

/// Out of file descriptors, most likely: wait for some to close.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);

/// Connections to a unix socket, whose user may connect.
pub struct LocalIncoming {
    listener: UnixListener,
    gate: Gate,
    resting: Option<Pin<Box<Sleep>>>,
}

impl LocalIncoming {
    pub(super) fn new(listener: UnixListener, gate: Gate) -> Self {
        Self {
            listener,
            gate,
            resting: None,
        }
    }
}

impl LocalIncoming {
    /// The socket, for a server that looks by itself who connects.
    pub fn into_inner(self) -> UnixListener {
        self.listener
    }
}

impl Stream for LocalIncoming {
    type Item = io::Result<Held<tokio::net::UnixStream>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(resting) = &mut self.resting {
                ready!(resting.as_mut().poll(cx));
                self.resting = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    // A peer that is gone already has no user.
                    let Ok(user) = stream.peer_cred() else {
                        continue;
                    };
                    if let Some(held) = self.gate.hold(stream, Peer::Uid(user.uid())) {
                        return Poll::Ready(Some(Ok(held)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.resting = Some(Box::pin(tokio::time::sleep(AFTER_A_FAILURE)));
                }
            }
        }
    }
}
