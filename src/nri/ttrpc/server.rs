// SPDX-License-Identifier: Apache-2.0
//! The serving side of ttrpc.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use prost::Message as _;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Body, Message, Messages, REQUEST, RESPONSE, encode};
use crate::{
    error::{Error, Kind, Result},
    nri::mux::{Outgoing, Stream},
    proto::ttrpc::{Request, Response, Status},
};

/// How many calls may be under way before the next one is read.
const MAX_CALLS: usize = 256;

/// The longest answer. A runtime written in Go queues 256 frames of a stream
/// and closes the connection when they overflow: half of that leaves room.
const MAX_ANSWER: usize = 512 << 10;

/// What one call asks for.
pub struct Call<'a> {
    /// The full name of the service.
    pub service: &'a str,
    /// The bare name of the method.
    pub method: &'a str,
    /// The request message.
    pub payload: &'a [u8],
    /// When the caller gives up, where it says so.
    pub deadline: Option<Instant>,
}

/// The answer to a call: here, or from a future that runs beside later calls.
pub enum Answer {
    /// The response message or an error.
    Now(Result<Vec<u8>>),
    /// It is polled once before the next call is read, so that what its first
    /// poll does comes in the order of calls.
    Later(Later),
}

type Later = Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>>;

/// Something that answers calls.
pub trait Service: Send + Sync + 'static {
    /// Called in the order in which calls arrive. A method that it does not
    /// have is answered with [`Kind::Unimplemented`].
    fn call(&self, call: &Call<'_>) -> Answer;
}

/// Serves a stream until it ends or `stop` is cancelled. Calls that are then
/// still under way are answered with [`Kind::Unavailable`].
pub async fn serve<S: Service>(mut stream: Stream, service: Arc<S>, stop: CancellationToken) {
    let mut messages = Messages::default();
    let mut running = JoinSet::new();
    loop {
        let piece = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            piece = stream.incoming.receive() => piece,
            Some(_) = running.join_next(), if !running.is_empty() => continue,
        };
        let Some(piece) = piece else { break };
        let mut input = &piece[..];
        while let Some(message) = messages.take(&mut input) {
            if message.kind != REQUEST {
                continue;
            }
            while running.len() >= MAX_CALLS {
                running.join_next().await;
            }
            let stream_id = message.stream;
            let answer = match begin(&*service, message) {
                Answer::Now(answer) => answer,
                Answer::Later(mut later) => {
                    let first = std::future::poll_fn(|cx| Poll::Ready(poll(&mut later, cx))).await;
                    match first {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => {
                            running.spawn(finish(
                                stream_id,
                                later,
                                stream.outgoing.clone(),
                                stop.clone(),
                            ));
                            continue;
                        }
                    }
                }
            };
            respond(&stream.outgoing, stream_id, answer).await;
        }
    }
    stop.cancel();
    while running.join_next().await.is_some() {}
}

fn begin(service: &impl Service, message: Message) -> Answer {
    let bytes = match message.body {
        Body::Whole(bytes) => bytes,
        Body::Oversized { length } => {
            return Answer::Now(Err(Error::exhausted(format!(
                "a request of {length} bytes is over the limit of ttrpc: split it"
            ))));
        }
    };
    let request = match Request::decode(&*bytes) {
        Ok(request) => request,
        Err(e) => {
            return Answer::Now(Err(
                Error::invalid("cannot read the ttrpc request").with_source(e)
            ));
        }
    };
    let timeout = u64::try_from(request.timeout_nano)
        .ok()
        .filter(|nanos| *nanos > 0);
    let call = Call {
        service: &request.service,
        method: &request.method,
        payload: &request.payload,
        deadline: timeout.and_then(|n| Instant::now().checked_add(Duration::from_nanos(n))),
    };
    catch_unwind(AssertUnwindSafe(|| service.call(&call)))
        .unwrap_or_else(|_| Answer::Now(Err(panicked())))
}

async fn finish(stream: u32, mut later: Later, outgoing: Outgoing, stop: CancellationToken) {
    let answer = tokio::select! {
        answer = std::future::poll_fn(|cx| poll(&mut later, cx)) => answer,
        () = stop.cancelled() => Err(Error::unavailable("the plugin is disconnecting: retry")),
    };
    drop(later);
    respond(&outgoing, stream, answer).await;
}

fn poll(later: &mut Later, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
    catch_unwind(AssertUnwindSafe(|| later.as_mut().poll(cx)))
        .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
}

// The panic itself is told by the panic hook; its text is not for the peer.
fn panicked() -> Error {
    Error::internal("the plugin broke while it handled the request: see its log")
}

async fn respond(outgoing: &Outgoing, stream: u32, answer: Result<Vec<u8>>) {
    let message = match answer {
        Ok(payload) if payload.len() > MAX_ANSWER => response(
            stream,
            Err(Error::exhausted(format!(
                "the answer of {} bytes is over the limit of {MAX_ANSWER}",
                payload.len()
            ))),
        ),
        answer => response(stream, answer),
    };
    // Where the connection has ended there is nobody to tell.
    let _ = outgoing.send(message).await;
}

fn response(stream: u32, answer: Result<Vec<u8>>) -> Vec<u8> {
    let response = match answer {
        Ok(payload) => Response {
            status: None,
            payload,
        },
        Err(error) => Response {
            status: Some(Status {
                code: code_for_peer(error.kind()),
                message: clip(error.full_message()),
            }),
            payload: Vec::new(),
        },
    };
    encode(stream, RESPONSE, &response.encode_to_vec())
        .expect("payload and message are cut to less than a ttrpc message may have")
}

/// DEADLINE_EXCEEDED is what the caller says when it drops a plugin; a plugin
/// that ran out of time is one to ask again.
fn code_for_peer(kind: Kind) -> i32 {
    match kind {
        Kind::DeadlineExceeded => Kind::Unavailable.code(),
        kind => kind.code(),
    }
}

fn clip(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_ANSWER));
    message
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::nri::mux::{self, Mux, PLUGIN};

    /// Has one method an answer.
    struct Double;

    impl Service for Double {
        fn call(&self, call: &Call<'_>) -> Answer {
            match call.method {
                "Echo" => Answer::Now(Ok(call.payload.to_vec())),
                "Panic" => panic!("on purpose"),
                "PanicLater" => Answer::Later(Box::pin(async {
                    tokio::task::yield_now().await;
                    panic!("on purpose")
                })),
                "Hang" => Answer::Later(Box::pin(std::future::pending())),
                "Long" => Answer::Now(Ok(vec![0; MAX_ANSWER + 1])),
                "Late" => Answer::Now(Err(Error::deadline("too late"))),
                "Left" => {
                    let left = call.deadline.map(|d| d.duration_since(Instant::now()));
                    let text = left.map_or("none".into(), |left| left.as_secs().to_string());
                    Answer::Now(Ok(text.into_bytes()))
                }
                other => Answer::Now(Err(Error::unimplemented(format!("no method {other}")))),
            }
        }
    }

    struct Peer {
        io: DuplexStream,
        stop: CancellationToken,
        server: tokio::task::JoinHandle<()>,
        mux: Mux,
    }

    fn start() -> Peer {
        let (ours, io) = tokio::io::duplex(1 << 20);
        let (mux, [stream]) = Mux::start(ours, [PLUGIN]);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(stream, Arc::new(Double), stop.clone()));
        Peer {
            io,
            stop,
            server,
            mux,
        }
    }

    impl Peer {
        async fn send(&mut self, stream: u32, method: &str, payload: &[u8], timeout_nano: i64) {
            let request = Request {
                service: "s".into(),
                method: method.into(),
                payload: payload.into(),
                timeout_nano,
                metadata: Vec::new(),
            };
            self.send_raw(&encode(stream, REQUEST, &request.encode_to_vec()).unwrap())
                .await;
        }

        async fn send_raw(&mut self, message: &[u8]) {
            let mut frames = Vec::new();
            mux::encode(PLUGIN, message, &mut frames);
            self.io.write_all(&frames).await.unwrap();
        }

        /// Stops the server and returns what it had answered: (stream, code, payload or message).
        async fn answers(mut self) -> Vec<(u32, i32, String)> {
            // Everything sent so far is read before the stop is seen: the
            // marker's answer comes last.
            self.send(9999, "Echo", b"marker", 0).await;
            let mut bytes = Vec::new();
            while !bytes.windows(6).any(|w| w == b"marker") {
                assert_ne!(self.io.read_buf(&mut bytes).await.unwrap(), 0);
            }
            self.stop.cancel();
            self.server.await.unwrap();
            self.mux.close(Duration::from_secs(5)).await;
            self.io.read_to_end(&mut bytes).await.unwrap();
            let stream = mux::decode(&bytes).unwrap().remove(&PLUGIN).unwrap();
            let mut found = Vec::new();
            for message in super::super::decode(&stream).unwrap() {
                let Body::Whole(body) = message.body else {
                    panic!("an oversized answer")
                };
                let response = Response::decode(&*body).unwrap();
                let payload = String::from_utf8(response.payload).unwrap();
                match response.status {
                    None => found.push((message.stream, 0, payload)),
                    Some(status) => found.push((message.stream, status.code, status.message)),
                }
            }
            found.retain(|(stream, ..)| *stream != 9999);
            found
        }
    }

    async fn one_answer(method: &str) -> (u32, i32, String) {
        let mut peer = start();
        peer.send(1, method, b"p", 0).await;
        let [answer] = peer.answers().await.try_into().unwrap();
        answer
    }

    #[tokio::test]
    async fn an_unknown_method_is_unimplemented() {
        assert_eq!(one_answer("Nope").await, (1, 12, "no method Nope".into()));
    }

    #[tokio::test]
    async fn a_panic_is_answered_as_internal_and_the_next_call_is_served() {
        let mut peer = start();
        peer.send(1, "Panic", b"", 0).await;
        peer.send(3, "Echo", b"alive", 0).await;
        let answers = peer.answers().await;
        assert_eq!((answers[0].0, answers[0].1), (1, 13));
        assert_eq!(answers[1], (3, 0, "alive".into()));
    }

    #[tokio::test]
    async fn a_panic_of_a_running_call_is_internal() {
        let mut peer = start();
        peer.send(1, "PanicLater", b"", 0).await;
        let mut bytes = [0; 128];
        let n = peer.io.read(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
        assert!(text.contains("see its log"), "{text}");
    }

    #[tokio::test]
    async fn the_timeout_becomes_a_deadline() {
        let mut peer = start();
        peer.send(1, "Left", b"", 100_500_000_000).await;
        for (stream, nanos) in [(3, 0), (5, -1)] {
            peer.send(stream, "Left", b"", nanos).await;
        }
        let answers = peer.answers().await;
        assert_eq!(answers[0].2, "100");
        assert_eq!(answers[1].2, "none");
        assert_eq!(answers[2].2, "none");
    }

    #[tokio::test]
    async fn running_calls_are_refused_when_the_server_stops() {
        let (stream, code, message) = one_answer("Hang").await;
        assert_eq!((stream, code), (1, 14));
        assert!(message.contains("retry"), "{message}");
    }

    #[tokio::test]
    async fn a_late_answer_asks_for_a_retry() {
        assert_eq!(one_answer("Late").await, (1, 14, "too late".into()));
    }

    #[tokio::test]
    async fn an_answer_that_would_overflow_the_runtime_s_queue_is_refused() {
        assert_eq!(one_answer("Long").await.1, 8);
    }

    #[tokio::test]
    async fn an_oversized_request_is_answered_and_the_next_one_served() {
        let mut peer = start();
        let length = super::super::MAX_MESSAGE as u32 + 1;
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0, 0, 1, REQUEST, 0]);
        message.resize(message.len() + length as usize, 0);
        peer.send_raw(&message).await;
        peer.send(3, "Echo", b"next", 0).await;
        let answers = peer.answers().await;
        assert_eq!((answers[0].0, answers[0].1), (1, 8));
        assert_eq!(answers[1], (3, 0, "next".into()));
    }

    #[tokio::test]
    async fn garbage_in_an_envelope_is_invalid_and_other_types_are_ignored() {
        let mut peer = start();
        peer.send_raw(&encode(1, REQUEST, &[0xff, 0xff]).unwrap())
            .await;
        peer.send_raw(&encode(3, 3, b"data").unwrap()).await;
        let [(stream, code, _)] = peer.answers().await.try_into().unwrap();
        assert_eq!((stream, code), (1, 3));
    }
}
