// SPDX-License-Identifier: Apache-2.0
//! gRPC over unix sockets.

use std::{
    error::Error as StdError,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::error::{Error, Result};

/// A gRPC channel over a unix socket.
pub type UnixChannel = Channel;

/// `sun_path` of a unix socket address, less its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Connects to the socket, within the time given.
///
/// The `:authority` is `localhost`: some servers refuse a path there.
pub async fn connect(socket: &Path, within: Duration) -> Result<UnixChannel> {
    dial(socket, within, false).await
}

/// Connects like [`connect`], but for one connection alone: once the server has
/// hung up, every call fails with an error that [`was_not_sent`] knows. For
/// callers that must learn anew who the server is after it was started again.
pub async fn connect_once(socket: &Path, within: Duration) -> Result<UnixChannel> {
    dial(socket, within, true).await
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

async fn dial(socket: &Path, within: Duration, once: bool) -> Result<UnixChannel> {
    let path: PathBuf = socket.into();
    let used = AtomicBool::new(false);
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        let refused = used.swap(true, Ordering::Relaxed) && once;
        async move {
            if refused {
                return Err(io::Error::other(HungUp));
            }
            UnixStream::connect(path).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_timeout(within)
        .connect_with_connector(connector)
        .await
        .map_err(|e| {
            Error::unavailable(format!(
                "cannot connect to {}: is its server running?",
                socket.display()
            ))
            .with_source(e)
        })
}

/// Listens on the socket, with mode 0600. A socket file that nobody listens on
/// any more is replaced; one with a live server is refused.
pub async fn bind(socket: &Path) -> Result<UnixListenerStream> {
    let shown = socket.display();
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::invalid(format!(
            "socket path {shown} is longer than {MAX_SOCKET_PATH} bytes: choose a shorter one"
        )));
    }
    if let Ok(found) = std::fs::symlink_metadata(socket) {
        if !found.file_type().is_socket() {
            return Err(Error::precondition(format!(
                "{shown} exists and is not a socket: move it away"
            )));
        }
        if UnixStream::connect(socket).await.is_ok() {
            return Err(Error::precondition(format!(
                "another server listens on {shown}: stop it first"
            )));
        }
        std::fs::remove_file(socket).map_err(|e| {
            Error::internal(format!("cannot remove the stale socket {shown}")).with_source(e)
        })?;
    }
    let listener = UnixListener::bind(socket)
        .map_err(|e| Error::internal(format!("cannot listen on {shown}")).with_source(e))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| Error::internal(format!("cannot restrict {shown} to 0600")).with_source(e))?;
    Ok(UnixListenerStream::new(listener))
}
