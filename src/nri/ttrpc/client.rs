// SPDX-License-Identifier: Apache-2.0
//! The calling side of ttrpc.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::{Body, Message, Messages, REQUEST, RESPONSE, encode};
use crate::{
    error::{Error, Kind, Result},
    nri::mux::{Incoming, Outgoing, Stream},
    proto::ttrpc::{Request, Response},
};

/// Calls a service over one stream.
pub struct Client {
    outgoing: Outgoing,
    waiting: Arc<Waiting>,
    _receiver: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Waiting(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    last: u32,
    open: HashMap<u32, oneshot::Sender<Body>>,
    closed: bool,
}

impl Client {
    /// Starts on a stream.
    pub fn start(stream: Stream) -> Self {
        let waiting = Arc::<Waiting>::default();
        let receiver = tokio::spawn(receive(stream.incoming, Arc::clone(&waiting)));
        Self {
            outgoing: stream.outgoing,
            waiting,
            _receiver: AbortOnDropHandle::new(receiver),
        }
    }

    /// Makes one call and waits for its answer.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>> {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload,
            timeout_nano: i64::try_from(within.as_nanos()).unwrap_or(i64::MAX),
            metadata: Vec::new(),
        };
        let answered = async {
            let (stream, answer) = self.waiting.open()?;
            let _open = Open(&self.waiting, stream);
            let message = encode(stream, REQUEST, &request.encode_to_vec())?;
            self.outgoing.send(message).await?;
            answer
                .await
                .map_err(|_| Error::unavailable("the runtime closed the connection"))
        };
        let body = tokio::time::timeout(within, answered)
            .await
            .map_err(|_| Error::deadline(format!("the runtime did not answer within {within:?}")))
            .and_then(|answer| answer)
            .and_then(read_response);
        body.map_err(|e| e.context(format_args!("calling {method} of the runtime")))
    }
}

fn read_response(body: Body) -> Result<Vec<u8>> {
    let bytes = match body {
        Body::Whole(bytes) => bytes,
        Body::Oversized { length } => {
            return Err(Error::exhausted(format!(
                "the answer of {length} bytes is over the limit of ttrpc"
            )));
        }
    };
    let response = Response::decode(&*bytes)
        .map_err(|e| Error::internal("cannot read the answer").with_source(e))?;
    match response.status {
        Some(status) if status.code != 0 => {
            Err(Error::new(Kind::from_code(status.code), status.message))
        }
        _ => Ok(response.payload),
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream id for a new call: odd, and greater than all before.
    fn open(&self) -> Result<(u32, oneshot::Receiver<Body>)> {
        let mut calls = self.lock();
        let stream = match calls.last {
            0 => Some(1),
            last => last.checked_add(2),
        };
        let Some(stream) = stream.filter(|_| !calls.closed) else {
            return Err(Error::unavailable("the connection is closed"));
        };
        calls.last = stream;
        let (answer, answered) = oneshot::channel();
        calls.open.insert(stream, answer);
        Ok((stream, answered))
    }
}

/// Forgets a call when its caller has gone, so that a late answer is ignored.
struct Open<'a>(&'a Waiting, u32);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.lock().open.remove(&self.1);
    }
}

async fn receive(mut incoming: Incoming, waiting: Arc<Waiting>) {
    let mut messages = Messages::default();
    while let Some(piece) = incoming.receive().await {
        let mut input = &piece[..];
        while let Some(Message { stream, kind, body }) = messages.take(&mut input) {
            let caller = waiting.lock().open.remove(&stream);
            if let Some(caller) = caller.filter(|_| kind == RESPONSE) {
                // The caller may have given up meanwhile.
                let _ = caller.send(body);
            }
        }
    }
    let mut calls = waiting.lock();
    calls.closed = true;
    calls.open.clear();
}
