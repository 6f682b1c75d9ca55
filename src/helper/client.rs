// SPDX-License-Identifier: Apache-2.0
//! Asks the helper.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{Answer, DEADLINE, LAST_BREATH, LINE_WITHIN, Request, wire::MAX_LINE};
use crate::error::{Error, Result};

/// Whoever asks waits longer than the helper does.
const MARGIN: Duration = Duration::from_secs(2);

/// Where the helper is.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the helper behind this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Asks once. A helper that is not there is UNAVAILABLE.
    pub async fn ask(&self, request: &Request) -> Result<Answer> {
        let shown = self.socket.display();
        let within = DEADLINE + LAST_BREATH + LINE_WITHIN + MARGIN;
        let asked = async {
            let mut stream = UnixStream::connect(&self.socket).await.map_err(|e| {
                Error::unavailable(format!(
                    "cannot reach the helper at {shown}: is `actor-volumes helper` running?"
                ))
                .with_source(e)
            })?;
            let line = talk(&mut stream, &request.encode()).await.map_err(|e| {
                Error::unavailable(format!("the helper at {shown} hung up")).with_source(e)
            })?;
            if line.is_empty() {
                return Err(Error::unavailable(format!(
                    "the helper at {shown} hung up without an answer"
                )));
            }
            Answer::decode(&line)
        };
        match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::unavailable(format!(
                "the helper at {shown} did not answer within {within:?}"
            ))),
        }
    }
}

async fn talk(stream: &mut UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut line = Vec::new();
    let answer = stream.take(MAX_LINE as u64);
    tokio::io::BufReader::new(answer)
        .read_to_end(&mut line)
        .await?;
    Ok(line)
}
