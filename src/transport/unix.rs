// SPDX-License-Identifier: Apache-2.0
//! gRPC over unix sockets.

use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint as Http};

use crate::{
    error::{Error, Result},
    host::socket,
};

/// `sun_path` of a unix socket address, less its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Connects to the socket, within the time given.
///
/// The `:authority` is `localhost`: some servers refuse a path there.
pub async fn connect(socket: &Path, within: Duration) -> Result<Channel> {
    open(socket, within, false, None).await
}

/// The same, for one connection alone.
pub(super) async fn open(
    socket: &Path,
    within: Duration,
    once: bool,
    keep_alive: Option<Duration>,
) -> Result<Channel> {
    let path: PathBuf = socket.into();
    let stream = move || UnixStream::connect(path.clone());
    let http = super::kept_alive(Http::from_static("http://localhost"), keep_alive);
    super::dial(http, within, once, stream).await.map_err(|e| {
        Error::unavailable(format!(
            "cannot connect to {}: is its server running?",
            socket.display()
        ))
        .with_source(e)
    })
}

/// Listens on the socket, with this mode from the first moment.
pub(super) async fn listen(socket: &Path, mode: u32) -> Result<UnixListener> {
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
    let failed = |e| Error::internal(format!("cannot listen on {shown}")).with_source(e);
    socket::listen(socket, mode)
        .and_then(UnixListener::from_std)
        .map_err(failed)
}
