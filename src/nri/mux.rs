// SPDX-License-Identifier: Apache-2.0
//! The multiplexer: several byte streams, told apart by an id, on one connection.
//!
//! There is no opening or closing of a stream: both sides just know the ids.
//! The end of the connection ends all of them.

mod frame;

use std::{collections::HashMap, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

pub use frame::{Frames, MAX_RECEIVED, MAX_SENT, decode, encode};

use crate::error::{Error, Result};

/// The connection on which the plugin serves and the runtime calls.
pub const PLUGIN: u32 = 1;
/// The connection on which the runtime serves and the plugin calls.
pub const RUNTIME: u32 = 2;

/// How much is read from the socket at once: the largest piece of a stream.
const READ_SIZE: usize = 16 << 10;
/// How many unread pieces a stream holds before the reader waits for it.
const MAX_PIECES: usize = 64;
/// How many unsent messages are held before senders wait.
const MAX_UNSENT: usize = 64;

/// One connection: a task that reads and a task that writes.
pub struct Mux {
    reader: AbortOnDropHandle<Error>,
    writer: AbortOnDropHandle<Result<()>>,
}

/// One stream of a connection.
pub struct Stream {
    /// What arrives on it.
    pub incoming: Incoming,
    /// What is sent on it.
    pub outgoing: Outgoing,
}

/// The receiving half of a stream.
pub struct Incoming(mpsc::Receiver<Vec<u8>>);

/// The sending half of a stream.
#[derive(Clone)]
pub struct Outgoing {
    id: u32,
    queue: mpsc::Sender<(u32, Vec<u8>)>,
}

impl Mux {
    /// Starts on a connection, with these streams. Bytes for any other id are ignored.
    pub fn start<T, const N: usize>(io: T, ids: [u32; N]) -> (Self, [Stream; N])
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read_half, write_half) = tokio::io::split(io);
        let (queue, unsent) = mpsc::channel(MAX_UNSENT);
        let mut routes = HashMap::new();
        let streams = ids.map(|id| {
            let (route, incoming) = mpsc::channel(MAX_PIECES);
            routes.insert(id, route);
            Stream {
                incoming: Incoming(incoming),
                outgoing: Outgoing {
                    id,
                    queue: queue.clone(),
                },
            }
        });
        let mux = Self {
            reader: AbortOnDropHandle::new(tokio::spawn(read(read_half, routes))),
            writer: AbortOnDropHandle::new(tokio::spawn(write(write_half, unsent))),
        };
        (mux, streams)
    }

    /// Waits for the end of the connection and says why it came.
    pub async fn ended(&mut self) -> Error {
        tokio::select! {
            read = &mut self.reader => read.unwrap_or_else(|e| {
                Error::internal("the reader of the NRI connection broke").with_source(e)
            }),
            written = &mut self.writer => match written {
                Ok(Err(error)) => error,
                Ok(Ok(())) => Error::unavailable("the NRI connection was closed on our side"),
                Err(e) => Error::internal("the writer of the NRI connection broke").with_source(e),
            },
        }
    }

    /// Closes the connection once what was sent is written, or when the time is
    /// over. All [`Outgoing`] must be dropped before.
    pub async fn close(mut self, within: Duration) {
        // Whether the last bytes went out can not matter any more: the caller
        // leaves either way, and the peer sees the end of the connection.
        if !self.writer.is_finished() {
            let _ = tokio::time::timeout(within, &mut self.writer).await;
        }
    }
}

impl Incoming {
    /// The next piece of the stream, of any length; `None` at the end of the connection.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

impl Outgoing {
    /// Sends the message; its frames keep together in order.
    pub async fn send(&self, message: Vec<u8>) -> Result<()> {
        self.queue
            .send((self.id, message))
            .await
            .map_err(|_| Error::unavailable("the NRI connection is closed"))
    }
}

async fn read(
    mut io: impl AsyncRead + Unpin,
    routes: HashMap<u32, mpsc::Sender<Vec<u8>>>,
) -> Error {
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let mut input = match io.read(&mut buffer).await {
            Ok(0) => {
                return frames.finish().err().unwrap_or_else(|| {
                    Error::unavailable("the runtime closed the NRI connection")
                });
            }
            Ok(n) => &buffer[..n],
            Err(e) => {
                return Error::unavailable("cannot read from the NRI connection").with_source(e);
            }
        };
        loop {
            match frames.take(&mut input) {
                // A stream whose reader is gone counts as unknown.
                Ok(Some((id, piece))) => {
                    if let Some(route) = routes.get(&id) {
                        let _ = route.send(piece.to_vec()).await;
                    }
                }
                Ok(None) => break,
                Err(error) => return error,
            }
        }
    }
}

async fn write(
    mut io: impl AsyncWrite + Unpin,
    mut unsent: mpsc::Receiver<(u32, Vec<u8>)>,
) -> Result<()> {
    let failed = |e| Error::unavailable("cannot write to the NRI connection").with_source(e);
    let mut frames = Vec::new();
    while let Some((id, message)) = unsent.recv().await {
        frames.clear();
        encode(id, &message, &mut frames);
        io.write_all(&frames).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
    }
    io.shutdown().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive_all(incoming: &mut Incoming) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = incoming.receive().await {
            all.extend(piece);
        }
        all
    }

    #[tokio::test]
    async fn streams_keep_apart_and_unknown_ids_are_ignored() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut mux, [mut one, mut two]) = Mux::start(ours, [PLUGIN, RUNTIME]);
        let mut bytes = Vec::new();
        for (id, text) in [(1, "a"), (7, "?"), (2, "bb"), (0, "?"), (1, "ccc")] {
            encode(id, text.as_bytes(), &mut bytes);
        }
        theirs.write_all(&bytes).await.unwrap();
        drop(theirs);
        assert_eq!(receive_all(&mut one.incoming).await, b"accc");
        assert_eq!(receive_all(&mut two.incoming).await, b"bb");
        let why = mux.ended().await.full_message();
        assert!(why.contains("closed the NRI connection"), "{why}");
    }

    #[tokio::test]
    async fn the_end_within_a_frame_says_so() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut mux, [_one]) = Mux::start(ours, [PLUGIN]);
        theirs
            .write_all(&[0, 0, 0, 1, 0, 0, 0, 9, 1])
            .await
            .unwrap();
        drop(theirs);
        let why = mux.ended().await.full_message();
        assert!(why.contains("middle of a frame"), "{why}");
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_is_held_in_bounds() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (_mux, [_one]) = Mux::start(ours, [PLUGIN]);
        let mut bytes = Vec::new();
        encode(PLUGIN, &vec![0; 4 << 20], &mut bytes);
        let stuck = tokio::time::timeout(Duration::from_millis(200), theirs.write_all(&bytes));
        assert!(stuck.await.is_err(), "4 MiB were taken in unread");
    }

    #[tokio::test]
    async fn closing_writes_what_was_sent() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let (mux, [one]) = Mux::start(ours, [PLUGIN]);
        one.outgoing.send(b"last words".to_vec()).await.unwrap();
        drop(one);
        mux.close(Duration::from_secs(5)).await;
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(decode(&bytes).unwrap()[&PLUGIN], b"last words");
    }
}
