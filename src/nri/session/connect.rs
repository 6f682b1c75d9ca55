// SPDX-License-Identifier: Apache-2.0
//! Connecting to the runtime's socket, with errors that say how to get one.

use std::{io::ErrorKind, path::Path, time::Duration};

use tokio::net::UnixStream;

use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const HOW_TO_ENABLE: &str = "start the runtime with NRI enabled; containerd: `disable = false` below `[plugins.\"io.containerd.nri.v1.nri\"]` (before 2.0 it is off by default), CRI-O: `enable_nri = true` below `[crio.nri]`";

/// Connects, or says what is wrong with the socket and what to do about it.
pub(super) async fn connect(socket: &Path) -> Result<UnixStream> {
    let shown = socket.display();
    let attempt = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
    let Ok(attempt) = attempt else {
        return Err(Error::unavailable(format!(
            "the NRI socket {shown} does not accept connections: is the runtime busy or hung?"
        )));
    };
    attempt.map_err(|e| {
        let problem = match e.kind() {
            ErrorKind::NotFound => {
                format!("the NRI socket {shown} does not exist: {HOW_TO_ENABLE}")
            }
            ErrorKind::ConnectionRefused => {
                format!("nobody listens on the NRI socket {shown}: {HOW_TO_ENABLE}")
            }
            ErrorKind::PermissionDenied => {
                format!("the NRI socket {shown} may not be used: run as the user who owns it")
            }
            _ => format!("cannot connect to the NRI socket {shown}"),
        };
        Error::unavailable(problem).with_source(e)
    })
}
