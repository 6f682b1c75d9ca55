// SPDX-License-Identifier: Apache-2.0
//! Frames and ttrpc messages as a runtime written in Go reads and writes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actor_volumes::proto::ttrpc::{Request, Response, Status as WireStatus};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
};

use super::{Status, lock};

pub(super) const PLUGIN: u32 = 1;
pub(super) const RUNTIME: u32 = 2;

/// Go's ttrpc reads and writes through a buffer of this size, and its
/// multiplexer fails a read into a buffer that is smaller than the frame.
const BUFFER: usize = 4096;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A call of the plugin to the runtime.
pub(super) struct Incoming {
    pub(super) stream: u32,
    pub(super) request: Request,
}

/// Why a call to the plugin has no answer.
pub(super) enum CallError {
    Refused(Status),
    Closed,
    TimedOut,
}

/// One connection to a plugin.
pub(super) struct Wire {
    write: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    calls: Mutex<Calls>,
    closed: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Calls {
    last: u32,
    open: HashMap<u32, oneshot::Sender<Response>>,
}

impl Wire {
    /// Starts reading; the plugin's own calls go to the receiver.
    pub(super) fn start(socket: UnixStream) -> (Arc<Self>, mpsc::UnboundedReceiver<Incoming>) {
        let (read_half, write_half) = socket.into_split();
        let wire = Arc::new(Self {
            write: tokio::sync::Mutex::new(Some(write_half)),
            calls: Mutex::default(),
            closed: watch::Sender::new(None),
        });
        let (incoming, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Arc::clone(&wire).read_until_closed(read_half, incoming));
        (wire, receiver)
    }

    pub(super) fn close(&self, why: &str) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(why.to_owned());
            }
            first
        });
    }

    pub(super) fn why_closed(&self) -> Option<String> {
        self.closed.borrow().clone()
    }

    pub(super) async fn wait_closed(&self) -> String {
        let mut closed = self.closed.subscribe();
        let closed = closed.wait_for(Option::is_some).await;
        let why = closed.expect("the sender is in self").clone();
        why.expect("waited for")
    }

    /// Calls the plugin, with the deadline in the request as Go's client sends it.
    pub(super) async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let (answer, answered) = oneshot::channel();
        let stream = {
            let mut calls = lock(&self.calls);
            let stream = if calls.last == 0 { 1 } else { calls.last + 2 };
            calls.last = stream;
            calls.open.insert(stream, answer);
            stream
        };
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload,
            timeout_nano: i64::try_from(within.as_nanos()).expect("a short timeout"),
            metadata: Vec::new(),
        };
        let request = request.encode_to_vec();
        let answered = async {
            let sent = self.send(PLUGIN, stream, REQUEST, &request).await;
            sent.map_err(|()| CallError::Closed)?;
            answered.await.map_err(|_| CallError::Closed)
        };
        // Where both are there, Go may take either: the worse one is taken here.
        let response = tokio::select! {
            biased;
            _ = self.wait_closed() => return Err(CallError::Closed),
            answered = tokio::time::timeout(within, answered) => answered,
        };
        lock(&self.calls).open.remove(&stream);
        let response = response.map_err(|_| CallError::TimedOut)??;
        match response.status {
            Some(WireStatus { code, message }) if code != 0 => {
                Err(CallError::Refused(Status { code, message }))
            }
            _ => Ok(response.payload),
        }
    }

    /// Answers a call of the plugin.
    pub(super) async fn answer(&self, stream: u32, answer: Result<Vec<u8>, Status>) {
        let response = match answer {
            Ok(payload) => Response {
                status: None,
                payload,
            },
            Err(Status { code, message }) => Response {
                status: Some(WireStatus { code, message }),
                payload: Vec::new(),
            },
        };
        let _ = self
            .send(RUNTIME, stream, RESPONSE, &response.encode_to_vec())
            .await;
    }

    /// A message as Go writes it: what fits the buffer in one frame, the rest in another.
    async fn send(&self, id: u32, stream: u32, kind: u8, body: &[u8]) -> Result<(), ()> {
        let length = u32::try_from(body.len()).expect("a short message");
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&stream.to_be_bytes());
        message.extend_from_slice(&[kind, 0]);
        message.extend_from_slice(body);
        let (first, rest) = message.split_at(message.len().min(BUFFER));
        let mut bytes = frame(id, first);
        if !rest.is_empty() {
            bytes.extend(frame(id, rest));
        }
        self.send_bytes(&bytes).await
    }

    pub(super) async fn send_bytes(&self, bytes: &[u8]) -> Result<(), ()> {
        let mut write = self.write.lock().await;
        let write = write.as_mut().ok_or(())?;
        tokio::select! {
            written = write.write_all(bytes) => written.map_err(drop),
            _ = self.wait_closed() => Err(()),
        }
    }

    async fn read_until_closed(
        self: Arc<Self>,
        read: OwnedReadHalf,
        incoming: mpsc::UnboundedSender<Incoming>,
    ) {
        let why = tokio::select! {
            why = self.read(read, incoming) => why,
            why = self.wait_closed() => why,
        };
        self.close(&why);
        *self.write.lock().await = None;
        lock(&self.calls).open.clear();
    }

    async fn read(
        &self,
        mut read: OwnedReadHalf,
        incoming: mpsc::UnboundedSender<Incoming>,
    ) -> String {
        let mut streams = [Vec::new(), Vec::new()];
        let mut last_call = 0;
        loop {
            let mut header = [0; 8];
            match read.read_exact(&mut header).await {
                Ok(_) => {}
                Err(e) => return format!("the plugin closed the connection ({e})"),
            }
            let [a, b, c, d, e, f, g, h] = header;
            let id = u32::from_be_bytes([a, b, c, d]);
            let length = u32::from_be_bytes([e, f, g, h]) as usize;
            if length > BUFFER {
                return format!("cannot allocate memory: a frame of {length} bytes");
            }
            let mut payload = vec![0; length];
            if read.read_exact(&mut payload).await.is_err() {
                return "the plugin closed the connection within a frame".into();
            }
            // Go would drop an unknown id without a word; here it is a mistake to find.
            let buffer = match id {
                PLUGIN => &mut streams[0],
                RUNTIME => &mut streams[1],
                _ => return format!("a frame for connection {id}"),
            };
            buffer.extend(payload);
            while let Some((stream, kind, body)) = take_message(buffer) {
                let problem = if id == PLUGIN {
                    self.take_response(stream, kind, &body)
                } else {
                    self.take_request(stream, kind, &body, &mut last_call, &incoming)
                        .await
                };
                if let Some(problem) = problem {
                    return problem;
                }
            }
        }
    }

    fn take_response(&self, stream: u32, kind: u8, body: &[u8]) -> Option<String> {
        if kind != RESPONSE {
            return Some(format!("a message of type {kind} instead of a response"));
        }
        let Ok(response) = Response::decode(body) else {
            return Some("a response that can not be read".into());
        };
        // An answer that comes too late is for nobody.
        if let Some(caller) = lock(&self.calls).open.remove(&stream) {
            let _ = caller.send(response);
        }
        None
    }

    async fn take_request(
        &self,
        stream: u32,
        kind: u8,
        body: &[u8],
        last: &mut u32,
        incoming: &mpsc::UnboundedSender<Incoming>,
    ) -> Option<String> {
        if kind != REQUEST {
            return Some(format!("a message of type {kind} instead of a request"));
        }
        let invalid = |message: &str| Status {
            code: 3,
            message: message.into(),
        };
        if stream % 2 != 1 {
            let problem = invalid("StreamID must be odd for client initiated streams");
            self.answer(stream, Err(problem)).await;
        } else if stream <= *last {
            let problem = invalid("StreamID cannot be re-used and must increment");
            self.answer(stream, Err(problem)).await;
        } else {
            *last = stream;
            match Request::decode(body) {
                Ok(request) => drop(incoming.send(Incoming { stream, request })),
                Err(_) => self.answer(stream, Err(invalid("unmarshal error"))).await,
            }
        }
        None
    }
}

/// One frame of the multiplexer.
pub(super) fn frame(id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The first whole message of a stream: stream id, type, body.
fn take_message(buffer: &mut Vec<u8>) -> Option<(u32, u8, Vec<u8>)> {
    let header: [u8; 10] = buffer.get(..10)?.try_into().ok()?;
    let [a, b, c, d, e, f, g, h, kind, _flags] = header;
    let end = 10 + u32::from_be_bytes([a, b, c, d]) as usize;
    let body = buffer.get(10..end)?.to_vec();
    buffer.drain(..end);
    Some((u32::from_be_bytes([e, f, g, h]), kind, body))
}
