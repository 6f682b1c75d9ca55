// SPDX-License-Identifier: Apache-2.0
//! Many nodes behind one [`NodePort`]: all dial in, the one of this host as well. A
//! node that is away is answered for at once.

mod admin;
mod line;
mod port;
mod record;
mod returning;
mod service;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use self::line::Line;
use super::store::Store;
use crate::{
    error::{Error, Result},
    model::{ActorRef, Grant, NodeName, VolumeKey},
    proto::api::{self, to_node::Message},
};

pub use admin::NodeAdminService;
pub use record::{DriverAtNode, Fence, NodeRecord};
pub use service::NodesService;

/// Grants in one message.
const GRANTS_AT_ONCE: usize = 200;

/// Who is told how many nodes there are of each state, and how many volumes may
/// have two writers.
pub trait NodeWatcher: Send + Sync {
    /// It may have changed.
    fn changed(&self, states: &BTreeMap<&'static str, usize>, possible_double_writers: usize);
}

/// The nodes of a control plane.
pub struct Nodes {
    store: Arc<dyn Store>,
    /// The node of this host, which comes by the unix socket alone.
    here: Option<NodeName>,
    watcher: Arc<dyn NodeWatcher>,
    book: Mutex<Book>,
    /// Counts the changes of who is connected.
    changes: watch::Sender<u64>,
    /// Held while the record of a node changes, and while that is judged on.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Book {
    nodes: BTreeMap<NodeName, Entry>,
    /// The current word for each node.
    words: HashMap<NodeName, BTreeMap<ActorRef, Grant>>,
    /// Where each actor's grant is.
    placed: HashMap<ActorRef, NodeName>,
    /// The public keys that nodes are to trust.
    keys: Vec<String>,
}

/// A node that has been connected.
struct Entry {
    record: NodeRecord,
    line: Option<Arc<Line>>,
    standing: Standing,
    /// Connected or away since then.
    since: Timestamp,
    /// Counts the hints that something was released.
    released: watch::Sender<u64>,
    /// What was fenced off and still lives there, with who holds it.
    doubles: BTreeMap<VolumeKey, String>,
}

/// What a connected node is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// All.
    Ready,
    /// It was fenced: what it held must be over first.
    Returning,
    /// Its state directory is another one: what it holds is not known.
    Unconfirmed,
}

impl Nodes {
    /// Reads what is known of nodes. `here` is the one of this host, where there is one.
    pub async fn open(
        store: Arc<dyn Store>,
        here: Option<NodeName>,
        watcher: Arc<dyn NodeWatcher>,
    ) -> Result<Arc<Self>> {
        let read = store.clone();
        let records = blocking(move || record::load(&*read)).await?;
        let entries = records.into_iter().map(|record| {
            let entry = Entry {
                since: record.last_seen,
                ..Entry::new(record)
            };
            (entry.record.name.clone(), entry)
        });
        let book = Book {
            nodes: entries.collect(),
            ..Book::default()
        };
        let nodes = Self {
            store,
            here,
            watcher,
            book: Mutex::new(book),
            changes: watch::Sender::default(),
            writing: tokio::sync::Mutex::default(),
        };
        nodes.tell(&nodes.book());
        Ok(Arc::new(nodes))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing that may panic happens between two changes that belong together.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_here(&self, node: &NodeName) -> bool {
        self.here.as_ref() == Some(node)
    }

    fn unknown(&self, node: &NodeName) -> Error {
        Error::unavailable(if self.is_here(node) {
            starting(node)
        } else {
            format!("node {node} has never been connected: start `actor-volumes node` there")
        })
    }

    /// What is wrong with the node, and what to do; empty: nothing.
    fn message(&self, entry: &Entry) -> String {
        match entry.state() {
            "Away" if self.is_here(&entry.record.name) => starting(&entry.record.name),
            _ => entry.message(),
        }
    }

    /// The connection of a node that may be asked.
    fn line(&self, node: &NodeName) -> Result<Arc<Line>> {
        let book = self.book();
        let entry = book.nodes.get(node).ok_or_else(|| self.unknown(node))?;
        match (&entry.line, entry.standing) {
            (Some(line), Standing::Ready | Standing::Returning) => Ok(line.clone()),
            (Some(_), Standing::Unconfirmed) => Err(Error::unavailable(unconfirmed(node))),
            (None, _) => Err(Error::unavailable(self.message(entry))),
        }
    }

    fn tell(&self, book: &Book) {
        let mut states = BTreeMap::new();
        for entry in book.nodes.values() {
            *states.entry(entry.state()).or_default() += 1;
        }
        let doubles = book.nodes.values().map(|e| e.doubles.len()).sum();
        self.watcher.changed(&states, doubles);
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Writes the record of a node, then changes what is known of it.
    async fn save(&self, record: NodeRecord) -> Result<()> {
        let store = self.store.clone();
        blocking(move || record::save(&*store, &record)).await
    }
}

impl Entry {
    fn new(record: NodeRecord) -> Self {
        Self {
            since: Timestamp::now(),
            record,
            line: None,
            standing: Standing::Ready,
            released: watch::Sender::default(),
            doubles: BTreeMap::new(),
        }
    }

    fn state(&self) -> &'static str {
        match (&self.line, self.standing) {
            (Some(_), Standing::Ready) => "Ready",
            (Some(_), Standing::Returning) => "Returning",
            (Some(_), Standing::Unconfirmed) => "Unconfirmed",
            (None, _) if self.record.fenced.is_some() => "Fenced",
            (None, _) => "Away",
        }
    }

    /// What is wrong with the node, and what to do; empty: nothing.
    fn message(&self) -> String {
        let node = &self.record.name;
        match self.state() {
            "Away" => away(self),
            "Fenced" => format!(
                "an operator has confirmed that node {node} is off: it is taken back when it connects again"
            ),
            "Returning" => returning(node),
            "Unconfirmed" => unconfirmed(node),
            _ => String::new(),
        }
    }
}

impl Book {
    /// What a node is told first, or anew: whether it is ready, and its word.
    fn whole_word(&self, node: &NodeName) -> Vec<Message> {
        let Some(entry) = self.nodes.get(node) else {
            return Vec::new();
        };
        let ready = entry.standing == Standing::Ready;
        let mut messages = vec![Message::Welcome(api::Welcome {
            ready,
            message: entry.message(),
        })];
        if !self.keys.is_empty() {
            messages.push(self.told_keys());
        }
        let word: Vec<_> = match self.words.get(node) {
            Some(word) if ready => word.values().filter_map(text).collect(),
            _ => Vec::new(),
        };
        let mut parts: Vec<_> = word.chunks(GRANTS_AT_ONCE).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        messages.extend(parts.into_iter().enumerate().map(|(at, put)| {
            Message::Grants(api::Grants {
                first: at == 0,
                last: at == last,
                put,
                removed: Vec::new(),
            })
        }));
        messages
    }

    fn told_keys(&self) -> Message {
        Message::Keys(api::Keys {
            pem: self.keys.clone(),
        })
    }

    /// The keys have changed, or not: then nobody is told.
    fn keys(&mut self, pems: &[String]) {
        if self.keys == pems {
            return;
        }
        self.keys = pems.to_vec();
        for line in self.nodes.values().filter_map(|e| e.line.as_ref()) {
            line.send(self.told_keys());
        }
    }

    /// Tells a node of a change, if it is there to be told.
    fn push(&self, node: &NodeName, put: Option<&Grant>, removed: Option<&ActorRef>) {
        let Some(entry) = self.nodes.get(node) else {
            return;
        };
        if let (Some(line), Standing::Ready) = (&entry.line, entry.standing) {
            line.send(Message::Grants(api::Grants {
                first: false,
                last: false,
                put: put.and_then(text).into_iter().collect(),
                removed: removed.map(ToString::to_string).into_iter().collect(),
            }));
        }
    }

    /// The word on an actor has changed.
    fn word(&mut self, actor: &ActorRef, grant: Option<&Grant>) {
        let there = self.placed.get(actor).cloned();
        if let Some(there) = &there
            && grant.is_none_or(|g| g.node != *there)
        {
            self.placed.remove(actor);
            if let Some(word) = self.words.get_mut(there) {
                word.remove(actor);
            }
            self.push(there, None, Some(actor));
        }
        let Some(grant) = grant else {
            return;
        };
        let word = self.words.entry(grant.node.clone()).or_default();
        if word.get(actor) != Some(grant) {
            word.insert(actor.clone(), grant.clone());
            self.placed.insert(actor.clone(), grant.node.clone());
            self.push(&grant.node, Some(grant), None);
        }
    }
}

/// A grant as it travels to its node, contexts included.
fn text(grant: &Grant) -> Option<String> {
    serde_json::to_string(grant).ok()
}

fn starting(node: &NodeName) -> String {
    format!(
        "the node agent of this host, {node}, is not connected: it is waited for; where it does not come, see the log"
    )
}

fn away(entry: &Entry) -> String {
    let (node, since) = (&entry.record.name, view::time(entry.since));
    match &entry.record.fenced {
        Some(fence) => format!(
            "node {node} was fenced by {} at {}",
            fence.by,
            view::time(fence.since)
        ),
        None => format!(
            "node {node} is not connected since {since}, and volumes may be in use there: bring the node back, or make sure that it is off and run `actor-volumes node fence {node} --confirm-off`"
        ),
    }
}

fn returning(node: &NodeName) -> String {
    format!(
        "node {node} was fenced and is back: it accepts no grant until what it held is over; see `actor-volumes node show {node}`"
    )
}

fn unconfirmed(node: &NodeName) -> String {
    format!(
        "node {node} has another state directory than before, and volumes are recorded there: it is not known what it holds; make sure that nothing that it held runs, then run `actor-volumes node reset {node} --confirm-nothing-runs`"
    )
}

/// Runs a call that blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|e| Error::internal("a call to the store did not come to its end").with_source(e))?
}
