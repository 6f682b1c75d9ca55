// SPDX-License-Identifier: Apache-2.0
//! The connections of a door: counted, and closed where they are in the way.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo, TlsConnectInfo};

use super::{
    super::limits::{Limits, Watcher},
    peer::Peer,
};

/// What every client of HTTP/2 says first (RFC 9113, section 3.4).
const FIRST_WORDS: usize = 24;

/// The connections of one door.
pub(super) struct Connections {
    door: &'static str,
    most: usize,
    most_of_name: usize,
    first_words: Duration,
    watcher: Arc<dyn Watcher>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    requests: AtomicUsize,
    /// When its latest request ended.
    quiet_since: Mutex<Instant>,
    closed: CancellationToken,
}

impl Connection {
    fn quiet_since(&self) -> Instant {
        *self
            .quiet_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    pub(super) fn new(door: &'static str, limits: &Limits, watcher: Arc<dyn Watcher>) -> Self {
        Self {
            door,
            most: limits.connections,
            most_of_name: limits.connections_of_name,
            first_words: limits.first_words,
            watcher,
            now: Mutex::default(),
        }
    }

    /// Holds a connection. Where there are too many, the one of a user that has been
    /// without a request for longest makes room; none: all are busy, or too many are
    /// of this certificate.
    pub(super) fn hold<S>(self: &Arc<Self>, stream: S, peer: Peer) -> Result<Held<S>, S> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |c: &&Arc<Connection>| !c.closed.is_cancelled();
        if let Peer::Names(_) = peer {
            let same = now.all.values().filter(open).filter(|c| c.peer == peer);
            if same.count() >= self.most_of_name {
                return Err(stream);
            }
        }
        if now.all.values().filter(open).count() >= self.most {
            let of_a_user = |c: &&Arc<Connection>| matches!(c.peer, Peer::Uid(_));
            let quiet = |c: &&Arc<Connection>| c.requests.load(Ordering::Relaxed) == 0;
            let all = now.all.values().filter(open);
            let in_the_way = all.filter(of_a_user).filter(quiet);
            match in_the_way.min_by_key(|c| c.quiet_since()) {
                Some(oldest) => oldest.closed.cancel(),
                None => return Err(stream),
            }
        }
        let connection = Arc::new(Connection {
            peer,
            requests: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
            closed: CancellationToken::new(),
        });
        let id = now.next;
        now.next += 1;
        now.all.insert(id, Arc::clone(&connection));
        self.watcher.connections(self.door, now.all.len());
        drop(now);
        Ok(Held {
            stream,
            closed: Box::pin(connection.closed.clone().cancelled_owned()),
            first_words: Some((Box::pin(tokio::time::sleep(self.first_words)), FIRST_WORDS)),
            caller: Caller(connection),
            _place: Place {
                of: Arc::clone(self),
                id,
            },
        })
    }
}

struct Place {
    of: Arc<Connections>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self.of.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.all.remove(&self.id);
        self.of.watcher.connections(self.of.door, now.all.len());
    }
}

/// The connection that a request came by.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Connection>);

impl Caller {
    /// Who it is.
    pub(super) fn peer(&self) -> Peer {
        self.0.peer.clone()
    }

    /// A request is under way until the value is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }
}

/// A request that is under way.
pub(super) struct UnderWay(Caller);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let connection = &self.0.0;
        let quiet = connection.quiet_since.lock();
        *quiet.unwrap_or_else(PoisonError::into_inner) = Instant::now();
        connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of a door. It ends where its peer does not begin to speak in time.
pub struct Held<S> {
    stream: S,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The deadline, and the bytes that are missing.
    first_words: Option<(Pin<Box<Sleep>>, usize)>,
    caller: Caller,
    _place: Place,
}

impl Connected for Held<UnixStream> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Connected for Held<TlsStream<TcpStream>> {
    type ConnectInfo = TlsConnectInfo<TcpConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some((deadline, missing)) = &mut this.first_words {
            *missing = missing.saturating_sub(buf.filled().len() - before);
            if *missing == 0 {
                this.first_words = None;
            } else if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
