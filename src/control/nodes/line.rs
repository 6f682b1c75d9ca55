// SPDX-License-Identifier: Apache-2.0
//! One connection of a node: what is sent to it, and who waits for its answers.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    model::{NodeName, VolumeKey},
    proto::api::{self, request::Call, to_node::Message},
    rpc::line,
};

/// What goes to the node; the transport wraps it in a stream.
pub(super) type Outgoing = Result<api::ToNode, tonic::Status>;

/// One connection of a node.
pub(super) struct Line {
    node: NodeName,
    pub(super) instance: String,
    queue: mpsc::Sender<Outgoing>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<api::Answer>>>>,
    /// What the node said last that it holds.
    pub(super) holdings: watch::Sender<Vec<api::Holding>>,
    /// Cancelled when it is over.
    pub(super) over: CancellationToken,
}

impl Line {
    pub(super) fn new(
        node: NodeName,
        instance: String,
        over: CancellationToken,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, outgoing) = mpsc::channel(line::QUEUE);
        let line = Self {
            node,
            instance,
            queue,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            holdings: watch::Sender::default(),
            over,
        };
        (line, outgoing)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<api::Answer>>>> {
        // Every change is one call: a panic elsewhere leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message at the end of the queue. A node that does not take what it
    /// is sent is cut off: it comes back and is told everything anew.
    pub(super) fn send(&self, message: Message) {
        let message = Ok(api::ToNode {
            message: Some(message),
        });
        if self.queue.try_send(message).is_err() && !self.over.is_cancelled() {
            tracing::warn!(node = %self.node, "the node does not take what it is sent, its connection is cut");
            self.over.cancel();
        }
    }

    /// Calls the node about a volume. Whoever calls has a deadline of its own.
    pub(super) async fn call(&self, volume: &VolumeKey, call: Call) -> Result<api::Answer> {
        let (driver, id) = (volume.driver.to_string(), volume.volume_id.clone());
        self.ask(driver, id, call).await
    }

    /// Resolves when the node has taken in what was sent to it before.
    pub(super) async fn told(&self) -> Result<()> {
        let call = Call::Told(api::ToldCall {});
        self.ask(String::new(), String::new(), call).await.map(drop)
    }

    async fn ask(&self, driver: String, volume_id: String, call: Call) -> Result<api::Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(id, answer);
        // A caller that gives up leaves nothing behind.
        let _forget = Forget { line: self, id };
        self.send(Message::Request(api::Request {
            id,
            driver,
            volume_id,
            call: Some(call),
        }));
        let lost = || {
            Error::unavailable(format!(
                "the connection to node {} was lost before it answered: it is asked again when it is back",
                self.node
            ))
        };
        tokio::select! {
            answer = answered => answer.unwrap_or_else(|_| Err(lost())),
            () = self.over.cancelled() => Err(lost()),
        }
    }

    /// The node has answered.
    pub(super) fn answered(&self, answer: api::Answer) {
        // Nobody waits for an answer that is late.
        if let Some(waiting) = self.waiting().remove(&answer.id) {
            let _ = waiting.send(line::outcome(answer));
        }
    }
}

struct Forget<'a> {
    line: &'a Line,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.line.waiting().remove(&self.id);
    }
}
