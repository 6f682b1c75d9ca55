// SPDX-License-Identifier: Apache-2.0
//! The helper's socket.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Semaphore,
};

use super::{Answer, DEADLINE, LINE_WITHIN, Request, child, turn::Turns, wire::MAX_LINE};
use crate::{
    error::{Error, Result},
    host::{
        lock::{self, DirLock, Locked},
        process,
    },
    transport,
};

/// Requests that are answered at the same time; each has a process.
const AT_ONCE: usize = 128;

/// How often it is tried whether another helper has ended.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What the helper is started with.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens, mode 0600.
    pub socket: PathBuf,
    /// What it is asked about lies below this directory.
    pub mount_root: PathBuf,
    /// The program `actor-volumes`.
    pub program: PathBuf,
    /// How long a deed may take.
    pub deadline: Duration,
}

impl Server {
    /// A helper as it is started everywhere.
    pub fn new(socket: PathBuf, mount_root: PathBuf) -> Self {
        Self {
            socket,
            mount_root,
            // Also when the file was replaced by a newer one meanwhile.
            program: "/proc/self/exe".into(),
            deadline: DEADLINE,
        }
    }

    async fn answer(&self, line: Result<Vec<u8>>, turns: &Turns) -> Answer {
        let refused = |e: Error| Answer::Refused {
            message: e.full_message(),
        };
        let request = match line.and_then(|line| Request::decode(&line)) {
            Ok(request) => request,
            Err(e) => return refused(e),
        };
        let Some(turn) = turns.take(&request.place.volume) else {
            return Answer::Busy {};
        };
        child::run(
            &self.program,
            &self.mount_root,
            &request,
            self.deadline,
            turn,
        )
        .await
    }
}

/// Serves until `ended`. A helper that has the socket already is waited for; what a
/// dead one left is replaced.
pub async fn serve(server: Server, ended: impl Future<Output = ()>) -> Result<()> {
    tokio::pin!(ended);
    let _lock = tokio::select! {
        locked = lock_when_free(&server) => locked?,
        () = &mut ended => return Ok(()),
    };
    let listener = transport::bind(&server.socket).await?.into_inner();
    tracing::info!(socket = %server.socket.display(), "the helper is running");
    let server = Arc::new(server);
    let turns = Arc::new(Turns::default());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut ended => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
        };
        let (server, turns) = (Arc::clone(&server), Arc::clone(&turns));
        let place = Arc::clone(&places).try_acquire_owned();
        tokio::spawn(async move {
            let answer = match place {
                Ok(_place) => one(stream, &server, &turns).await,
                Err(_) => say(stream, &too_many()).await,
            };
            if let Err(error) = answer {
                tracing::debug!(%error, "a peer went away");
            }
        });
    }
    // The lock is held: it is ours, or nobody's.
    let _ = std::fs::remove_file(&server.socket);
    Ok(())
}

async fn one(mut stream: UnixStream, server: &Server, turns: &Turns) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 && peer.uid() != process::uid() {
        tracing::warn!(uid = peer.uid(), pid = ?peer.pid(), "a peer was refused");
        let message = format!("user {} may not ask the helper", peer.uid());
        return say(stream, &Answer::Refused { message }).await;
    }
    let line = line(&mut stream).await;
    let answer = server.answer(line, turns).await;
    say(stream, &answer).await
}

/// The one line of a connection.
async fn line(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let read = async {
        let mut chunk = [0; 1024];
        while line.last() != Some(&b'\n') {
            let more = stream.read(&mut chunk).await?;
            line.extend_from_slice(&chunk[..more]);
            if more == 0 || line.len() > MAX_LINE {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    match tokio::time::timeout(LINE_WITHIN, read).await {
        Ok(Ok(())) => Ok(line),
        Ok(Err(e)) => Err(Error::unavailable("cannot read the request").with_source(e)),
        Err(_) => Err(Error::deadline(format!(
            "the request did not come within {LINE_WITHIN:?}"
        ))),
    }
}

async fn say(mut stream: UnixStream, answer: &Answer) -> std::io::Result<()> {
    let line = answer.encode();
    tokio::time::timeout(LINE_WITHIN, stream.write_all(&line))
        .await
        .unwrap_or_else(|late| Err(late.into()))
}

fn too_many() -> Answer {
    Answer::Refused {
        message: format!("{AT_ONCE} requests are under way: retry"),
    }
}

async fn lock_when_free(server: &Server) -> Result<DirLock> {
    let path = server.socket.with_extension("lock");
    let mut said = false;
    loop {
        let found = lock::try_lock_file(&path).map_err(|e| {
            Error::internal(format!("cannot lock {}", path.display())).with_source(e)
        })?;
        match found {
            Locked::Ours(lock) => return Ok(lock),
            Locked::Held(holder) if !said => {
                tracing::warn!(
                    pid = holder,
                    "another helper has {}: waiting for its end",
                    path.display()
                );
                said = true;
            }
            Locked::Held(_) => {}
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

#[cfg(test)]
mod tests;
