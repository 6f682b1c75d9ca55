// SPDX-License-Identifier: Apache-2.0
//! A door of a daemon: who may come in, how many at a time, and how fast.
//!
//! Every server of this project stands behind one. What comes in is bounded three
//! times: connections, requests that wait, and requests under way. Of each some is
//! kept for what must not starve, see [`Kind`].

mod held;
mod listen;
mod pass;
mod peer;
mod told;
mod turns;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::{Status, transport::Server};
use tower::layer::util::{Identity, Stack};

use self::{held::Connections, told::Teller, turns::Turns};
use super::{
    KEEP_ALIVE, TlsFiles,
    limits::{Kind, Limits, Refused, Unwatched, Watcher},
};
use crate::{
    error::{Error, Result},
    host::socket,
};

pub use held::Held;
pub use listen::{Incoming, LocalIncoming};
pub use pass::GateLayer;
pub use peer::{NamePattern, Peer};

/// The headers of one request.
const HEADERS: u32 = 16 << 10;

/// Requests of one connection at a time.
const STREAMS: u32 = 128;

/// How often a local peer that says nothing is asked whether it lives. A person may
/// have stopped it for a while.
const LOCAL_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Of each reason one line of log in this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Who may come in by a door, and what is bounded there.
pub struct Rules {
    /// The door, as a label.
    pub name: &'static str,
    /// Users that may connect, beside root and the user of this process.
    pub uids: BTreeSet<u32>,
    /// Names of certificates that may connect; none: every one of the authority.
    pub names: Vec<NamePattern>,
    /// The limits.
    pub limits: Limits,
    /// What a request is, by its path.
    pub kinds: fn(&str) -> Kind,
    /// Who counts.
    pub watcher: Arc<dyn Watcher>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            name: "local",
            uids: BTreeSet::new(),
            names: Vec::new(),
            limits: Limits::default(),
            kinds: |_| Kind::Other,
            watcher: Arc::new(Unwatched),
        }
    }
}

/// A door.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    rules: Rules,
    own_uid: u32,
    turns: Arc<Turns>,
    connections: Arc<Connections>,
    teller: Teller,
    said: Mutex<[Said; Refused::ALL.len()]>,
}

/// When a reason was last written to the log, and how often it was not since.
#[derive(Default, Clone, Copy)]
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl Gate {
    /// A door with these rules.
    pub fn new(rules: Rules) -> Self {
        let watcher = Arc::clone(&rules.watcher);
        let connections = Connections::new(rules.name, &rules.limits, watcher);
        Self(Arc::new(Inner {
            own_uid: socket::own_uid(),
            turns: Arc::new(Turns::new(&rules.limits)),
            connections: Arc::new(connections),
            teller: Teller::default(),
            said: Mutex::default(),
            rules,
        }))
    }

    /// Listens on a unix socket. Its mode is 0600 from the first moment; where the
    /// rules name further users it is 0666, for a mode cannot name them, and each
    /// connection is checked against the kernel's word on who it is. A socket file
    /// that nobody listens on any more is replaced; one with a live server is refused.
    pub async fn bind(&self, socket: &Path) -> Result<LocalIncoming> {
        let mode = if self.0.rules.uids.is_empty() {
            0o600
        } else {
            0o666
        };
        let listener = super::unix::listen(socket, mode).await?;
        Ok(LocalIncoming::new(listener, self.clone()))
    }

    /// Listens on TCP. The peer of every connection has a certificate of the authority
    /// in the files. Gives also the address, whose port may have been the kernel's choice.
    pub async fn listen(
        &self,
        address: SocketAddr,
        files: TlsFiles,
    ) -> Result<(SocketAddr, Incoming)> {
        super::server::listen(address, files, self.clone()).await
    }

    /// A server behind this door, for its unix sockets.
    pub fn server(&self) -> Server<Stack<GateLayer, Identity>> {
        self.server_with(LOCAL_KEEP_ALIVE)
    }

    /// The same for TCP: a dead peer is noticed soon.
    pub fn remote_server(&self) -> Server<Stack<GateLayer, Identity>> {
        self.server_with(KEEP_ALIVE)
    }

    fn server_with(&self, keep_alive: Duration) -> Server<Stack<GateLayer, Identity>> {
        Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(HEADERS)
            .http2_keepalive_interval(Some(keep_alive))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .layer(GateLayer(self.clone()))
    }

    /// The bytes of a request, for the decoder of a service.
    pub fn request_bytes(&self) -> usize {
        self.0.rules.limits.request_bytes
    }

    fn limits(&self) -> &Limits {
        &self.0.rules.limits
    }

    fn kind(&self, path: &str) -> Kind {
        (self.0.rules.kinds)(path)
    }

    fn turns(&self) -> &Arc<Turns> {
        &self.0.turns
    }

    fn admits(&self, peer: &Peer) -> bool {
        let rules = &self.0.rules;
        match peer {
            Peer::Uid(uid) => *uid == 0 || *uid == self.0.own_uid || rules.uids.contains(uid),
            Peer::Names(names) => {
                let admitted = |name: &String| rules.names.iter().any(|p| p.matches(name));
                rules.names.is_empty() || names.iter().any(admitted)
            }
        }
    }

    /// Lets a connection in, or tells its peer why not.
    pub(super) fn hold<S>(&self, stream: S, peer: Peer) -> Option<Held<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        if !self.admits(&peer) {
            let why = self.refuse(&peer, Refused::Peer);
            self.0.teller.tell(stream, why);
            return None;
        }
        match self.0.connections.hold(stream, peer.clone()) {
            Ok(held) => Some(held),
            Err(stream) => {
                let why = self.refuse(&peer, Refused::Connections);
                self.0.teller.tell(stream, why);
                None
            }
        }
    }

    /// Counts and logs it, and says it in words.
    fn refuse(&self, peer: &Peer, why: Refused) -> Status {
        self.0.rules.watcher.refused(self.0.rules.name, why);
        let error = self.words(peer, why);
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut said[why as usize];
        if last.at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            let door = self.0.rules.name;
            tracing::warn!(door, %peer, unsaid = last.unsaid, error = %error.full_message(), "refused at a door");
            *last = Said {
                at: Some(Instant::now()),
                unsaid: 0,
            };
        } else {
            last.unsaid += 1;
        }
        Status::new(error.kind().code().into(), error.full_message())
    }

    fn words(&self, peer: &Peer, why: Refused) -> Error {
        let Limits {
            request_bytes,
            requests,
            queue,
            queue_wait,
            connections,
            connections_of_name,
            ..
        } = self.limits();
        match (why, peer) {
            (Refused::Peer, Peer::Uid(uid)) => Error::denied(format!(
                "uid {uid} may not use this socket: root, uid {} and those in node.allowed_uids of the daemon's configuration may",
                self.0.own_uid
            )),
            (Refused::Peer, Peer::Names(_)) => Error::denied(format!(
                "{peer} may not connect: its authority is right, but control.tls.allowed_names of the control plane's configuration has none of its names"
            )),
            (Refused::Connections, Peer::Uid(_)) => Error::exhausted(format!(
                "{connections} connections are open, each with a request under way: that is the limit (limits.connections), try again later"
            )),
            (Refused::Connections, Peer::Names(_)) => Error::exhausted(format!(
                "{connections_of_name} connections are open for {peer}, or {connections} in all: that is the limit, try again later"
            )),
            (Refused::Queue, _) => Error::exhausted(format!(
                "{queue} requests of {peer} wait already: that is the limit (limits.queue), try again later"
            )),
            (Refused::Busy, _) => Error::exhausted(format!(
                "the request has waited for {queue_wait:?} and had no turn: {requests} are under way at most, and those of {peer} come too fast or take long; try again later"
            )),
            (Refused::Size, _) => Error::invalid(format!(
                "the request is larger than {request_bytes} bytes, which is the limit (limits.request_bytes): send less"
            )),
            (Refused::Slow, _) => Error::new(
                crate::error::Kind::DeadlineExceeded,
                format!("the bytes of the request were not here within {queue_wait:?}"),
            ),
            (Refused::Panic, _) => Error::internal(
                "the request met a defect of the daemon, whose log has more; other requests go on",
            ),
        }
    }
}
