// SPDX-License-Identifier: Apache-2.0
//! The helper's socket.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
};
use tokio_stream::StreamExt;

use super::{Answer, DEADLINE, LINE_WITHIN, Request, child, turn::Turns, wire::MAX_LINE};
use crate::{
    error::{Error, Result},
    host::lock::{self, DirLock, Locked},
    transport,
};

/// Requests that are answered at the same time; each has a process.
const AT_ONCE: usize = 128;

/// How long a request waits for another one at the same volume.
const TURN_WITHIN: Duration = Duration::from_millis(200);

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
        // Most deeds are done in no time.
        let turn = tokio::time::timeout(TURN_WITHIN, turns.wait(&request.place.volume));
        let Ok(turn) = turn.await else {
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
    let mut incoming = transport::bind(&server.socket).await?;
    tracing::info!(socket = %server.socket.display(), "the helper is running");
    let server = Arc::new(server);
    let turns = Arc::new(Turns::default());
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let stream = tokio::select! {
            accepted = incoming.next() => accepted,
            () = &mut ended => break,
        };
        let Some(Ok(stream)) = stream else {
            // The door looks after those that did not come in.
            continue;
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

async fn one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server: &Server,
    turns: &Turns,
) -> std::io::Result<()> {
    let line = line(&mut stream).await;
    let answer = server.answer(line, turns).await;
    say(stream, &answer).await
}

/// The one line of a connection.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
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

async fn say(mut stream: impl AsyncWrite + Unpin, answer: &Answer) -> std::io::Result<()> {
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
