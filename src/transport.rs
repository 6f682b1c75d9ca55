// SPDX-License-Identifier: Apache-2.0
//! How every gRPC client and server of this project connects: unix sockets, and
//! TCP with mutual TLS for controllers elsewhere, and between nodes and
//! their control plane.

mod endpoint;
mod gate;
mod limits;
mod server;
mod tls;
mod unix;

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Endpoint as Http, Uri};
use tower::service_fn;

pub use endpoint::{Address, Endpoint, TlsEndpoint, TlsFiles};
pub use gate::{Gate, GateLayer, Held, Incoming, LocalIncoming, NamePattern, Peer, Rules};
pub use limits::{Kind, Limits, Refused, Unwatched, Watcher};
pub use server::names_of;
pub use tls::{Fingerprint, fingerprint};
pub use tonic::transport::Channel;
pub use unix::connect;

use crate::error::Result;

/// Listens on a unix socket of mode 0600 for root and this process's own user, with
/// the limits that hold by default. For a server behind them, and for other rules,
/// there is [`Gate`].
pub async fn bind(socket: &Path) -> Result<LocalIncoming> {
    Gate::new(Rules::default()).bind(socket).await
}

/// Listens on TCP for every certificate of the authority in the files, see
/// [`Gate::listen`].
pub async fn listen(address: SocketAddr, files: TlsFiles) -> Result<(SocketAddr, Incoming)> {
    Gate::new(Rules::default()).listen(address, files).await
}

/// Connects within the time given, for one connection alone: once the server has
/// hung up, every call fails with an error that [`was_not_sent`] knows. For
/// callers that must learn anew who the server is after it was started again.
///
/// Gives also what the TLS files held, where there are any.
pub async fn connect_once(
    endpoint: &Endpoint,
    within: Duration,
) -> Result<(Channel, Option<Fingerprint>)> {
    match endpoint {
        Endpoint::Unix(socket) => Ok((unix::open(socket, within, true, None).await?, None)),
        Endpoint::Tls(tls) => {
            let (channel, fingerprint) = tls::connect_once(tls, within, None).await?;
            Ok((channel, Some(fingerprint)))
        }
    }
}

/// How often each end of a lasting connection makes sure that the other lives; one
/// that does not answer for as long again is dead.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The same for a connection that lasts: a dead peer is noticed, see [`KEEP_ALIVE`].
pub async fn connect_lasting(
    endpoint: &Endpoint,
    within: Duration,
) -> Result<(Channel, Option<Fingerprint>)> {
    match endpoint {
        Endpoint::Unix(socket) => {
            let channel = unix::open(socket, within, true, Some(KEEP_ALIVE)).await?;
            Ok((channel, None))
        }
        Endpoint::Tls(tls) => {
            let (channel, files) = tls::connect_once(tls, within, Some(KEEP_ALIVE)).await?;
            Ok((channel, Some(files)))
        }
    }
}

/// What the TLS files of the endpoint hold now, where it has any.
pub async fn fingerprint_of(endpoint: &Endpoint) -> Result<Option<Fingerprint>> {
    match endpoint {
        Endpoint::Unix(_) => Ok(None),
        Endpoint::Tls(tls) => fingerprint(&tls.tls).await.map(Some),
    }
}

/// With `keep_alive` a peer that is silent for that long, twice, is taken for dead.
fn kept_alive(http: Http, keep_alive: Option<Duration>) -> Http {
    match keep_alive {
        Some(every) => http
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(every)
            .keep_alive_while_idle(true),
        None => http,
    }
}

/// Whether the call failed because the one connection of [`connect_once`] was
/// gone, before anything was sent.
pub fn was_not_sent(status: &tonic::Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        // An io::Error shows its inner error by get_ref alone: source() skips it.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if error.is::<HungUp>() || inner.is_some_and(|e| e.is::<HungUp>()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The one connection was used up.
#[derive(Debug, thiserror::Error)]
#[error("the server has hung up")]
struct HungUp;

/// Connects by what `open` opens; where `once`, by its first connection alone.
async fn dial<S, F>(
    http: Http,
    within: Duration,
    once: bool,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let used = AtomicBool::new(false);
    let connector = service_fn(move |_: Uri| {
        let refused = used.swap(true, Ordering::Relaxed) && once;
        let opening = open();
        async move {
            if refused {
                return Err(io::Error::other(HungUp));
            }
            opening.await.map(TokioIo::new)
        }
    });
    http.connect_timeout(within)
        .connect_with_connector(connector)
        .await
}
