// SPDX-License-Identifier: Apache-2.0
//! The end of the line at the control plane: who may connect, and what a node
//! says.

use std::{pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Entry, NodeRecord, Nodes, Standing,
    line::{Line, Outgoing},
    returning, view,
};
use crate::{
    control::Control,
    error::{Error, Result},
    model::NodeName,
    proto::api::{self, from_node::Message, nodes_server},
    rpc::{line, status_of},
};

/// How long a node may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The server side of `actorvolumes.v1.Nodes`. Serve it behind mutual TLS, where a
/// certificate names each node; or on a unix socket, for one node alone.
#[derive(Clone)]
pub struct NodesService {
    control: Arc<Control>,
    nodes: Arc<Nodes>,
    /// The only node that may come here, by a unix socket; none: any with a certificate.
    only: Option<NodeName>,
}

/// What goes to a node.
type Outbound = Pin<Box<dyn Stream<Item = Outgoing> + Send>>;

impl NodesService {
    /// The service over the nodes of a control plane.
    pub fn new(control: Arc<Control>, nodes: Arc<Nodes>) -> Self {
        Self {
            control,
            nodes,
            only: None,
        }
    }

    /// The same for a unix socket, behind a door that lets nobody in but root and the
    /// user of this process: whoever comes may use this name alone.
    pub fn only(self, node: NodeName) -> Self {
        Self {
            only: Some(node),
            ..self
        }
    }

    /// The names that whoever calls may use.
    fn names<T>(&self, request: &Request<T>) -> Vec<String> {
        match &self.only {
            Some(node) => vec![node.to_string()],
            None => line::peer_names(request),
        }
    }

    async fn hello(&self, inbound: &mut Streaming<api::FromNode>) -> Result<api::Hello> {
        let first = tokio::time::timeout(HELLO_WITHIN, inbound.message()).await;
        match first {
            Ok(Ok(Some(api::FromNode {
                message: Some(Message::Hello(hello)),
            }))) => Ok(hello),
            _ => Err(Error::invalid("a node must begin with Hello")),
        }
    }

    /// Lets a node in that has proven its name.
    async fn admit(
        &self,
        names: &[String],
        mut hello: api::Hello,
        inbound: Streaming<api::FromNode>,
    ) -> Result<Outbound> {
        let node = self.check(names, &hello)?;
        let holdings = std::mem::take(&mut hello.holdings);
        let over = self.control.stop.child_token();
        let (line, outgoing) = Line::new(node.clone(), hello.instance.clone(), over);
        let line = Arc::new(line);
        let (first, standing) = self.enter(&node, &line, hello).await?;
        tracing::info!(%node, ?standing, "a node is connected");
        if standing == Standing::Returning {
            let (control, nodes) = (self.control.clone(), self.nodes.clone());
            let back = returning::settle(control, nodes, node.clone(), line.clone(), holdings);
            self.control.tasks.spawn(back);
        }
        if standing == Standing::Ready {
            self.control.node_is_back(&node);
        }
        let first = first.into_iter().map(|message| {
            Ok(api::ToNode {
                message: Some(message),
            })
        });
        let service = self.clone();
        self.control.tasks.spawn(async move {
            service.listen(node, line, inbound).await;
        });
        // It ends when the last owner of the line is gone.
        let rest = ReceiverStream::new(outgoing);
        Ok(Box::pin(tokio_stream::iter(first).chain(rest)))
    }

    fn check(&self, names: &[String], hello: &api::Hello) -> Result<NodeName> {
        if hello.protocol != line::PROTOCOL {
            return Err(Error::precondition(format!(
                "node {} speaks version {} of the protocol, and this control plane {}: update the older of the two",
                hello.node,
                hello.protocol,
                line::PROTOCOL
            )));
        }
        let node: NodeName = hello.node.parse()?;
        if !names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(node.as_str()))
        {
            return Err(Error::denied(match &self.only {
                Some(here) => format!(
                    "node {node} cannot come by the socket of node {here}: set node.name to that, or connect with mutual TLS"
                ),
                None => format!(
                    "a certificate for {names:?} cannot speak for node {node}: give the node one with its name as a DNS name"
                ),
            }));
        }
        if self.only.is_none() && self.nodes.is_here(&node) {
            return Err(Error::already_exists(format!(
                "node {node} is the node of the control plane's own host: set another node.name"
            )));
        }
        if hello.instance.is_empty() {
            return Err(Error::invalid("a node must tell its instance"));
        }
        Ok(node)
    }

    /// Records the node and makes the line its connection. Gives what it is told
    /// first.
    async fn enter(
        &self,
        node: &NodeName,
        line: &Arc<Line>,
        hello: api::Hello,
    ) -> Result<(Vec<api::to_node::Message>, Standing)> {
        let nodes = &self.nodes;
        let _writing = nodes.writing.lock().await;
        let known = nodes.known(node, &hello.instance)?;
        let now = Timestamp::now();
        let wiped = known.as_ref().is_some_and(|r| r.instance != hello.instance);
        let mut record =
            known.unwrap_or_else(|| NodeRecord::new(node.clone(), hello.instance.clone(), now));
        let fenced = record.fenced.is_some();
        let standing = if wiped && (fenced || self.control.is_attached_to(node).await?) {
            Standing::Unconfirmed
        } else if fenced {
            Standing::Returning
        } else {
            Standing::Ready
        };
        if standing != Standing::Unconfirmed {
            record.instance = hello.instance;
        }
        record.boot_id = hello.boot_id;
        record.drivers = view::told(hello.drivers);
        record.last_seen = now;
        nodes.save(record.clone()).await?;
        let mut book = nodes.book();
        let entry = book
            .nodes
            .entry(node.clone())
            .or_insert_with(|| Entry::new(record.clone()));
        entry.record = record;
        entry.standing = standing;
        entry.since = now;
        if let Some(older) = entry.line.replace(line.clone()) {
            older.over.cancel();
        }
        nodes.tell(&book);
        Ok((book.whole_word(node), standing))
    }

    /// Hears what the node says until the connection is over.
    async fn listen(&self, node: NodeName, line: Arc<Line>, mut inbound: Streaming<api::FromNode>) {
        let over = line.over.clone();
        let heard = async {
            while let Ok(Some(said)) = inbound.message().await {
                match said.message {
                    Some(Message::Answer(answer)) => line.answered(answer),
                    Some(Message::Released(_)) => self.nodes.hint(&node),
                    Some(Message::Holdings(told)) => {
                        line.holdings.send_replace(told.holdings);
                    }
                    Some(Message::Drivers(told)) => self.nodes.drivers(&node, told.drivers).await,
                    Some(Message::Hello(_)) | None => {}
                }
            }
        };
        over.run_until_cancelled(heard).await;
        line.over.cancel();
        self.nodes.gone(&node, &line).await;
    }
}

#[tonic::async_trait]
impl nodes_server::Nodes for NodesService {
    type ConnectStream = Outbound;

    async fn connect(
        &self,
        request: Request<Streaming<api::FromNode>>,
    ) -> Result<Response<Outbound>, Status> {
        let names = self.names(&request);
        let mut inbound = request.into_inner();
        let admitted = async {
            let hello = self.hello(&mut inbound).await?;
            self.admit(&names, hello, inbound).await
        };
        let admitted = admitted.await;
        admitted.map(Response::new).map_err(|error| {
            tracing::warn!(error = %error.full_message(), "a node was refused");
            status_of(&error)
        })
    }
}

impl Nodes {
    /// What is known of a node that wants to connect. Refused while another
    /// machine is connected by its name.
    fn known(&self, node: &NodeName, instance: &str) -> Result<Option<NodeRecord>> {
        let book = self.book();
        let Some(entry) = book.nodes.get(node) else {
            return Ok(None);
        };
        if let Some(line) = &entry.line
            && line.instance != instance
            && !line.over.is_cancelled()
        {
            return Err(Error::already_exists(format!(
                "node {node} is connected already, with another state directory: two machines have one name, set node.name of one of them"
            )));
        }
        Ok(Some(entry.record.clone()))
    }

    fn hint(&self, node: &NodeName) {
        if let Some(entry) = self.book().nodes.get(node) {
            entry.released.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    async fn drivers(&self, node: &NodeName, drivers: Vec<api::NodeDriver>) {
        let drivers = view::told(drivers);
        self.amend(node, |entry| entry.record.drivers = drivers)
            .await;
    }

    /// The connection is over. One that was replaced is nobody's loss.
    async fn gone(&self, node: &NodeName, line: &Arc<Line>) {
        let ours = |entry: &Entry| entry.line.as_ref().is_some_and(|l| Arc::ptr_eq(l, line));
        if !self.book().nodes.get(node).is_some_and(ours) {
            return;
        }
        tracing::warn!(%node, "a node is not connected any more");
        self.amend(node, |entry| {
            if ours(entry) {
                entry.line = None;
                entry.since = Timestamp::now();
                entry.record.last_seen = entry.since;
            }
        })
        .await;
    }

    /// Changes what is known of a node; what cannot be written is known until the
    /// process ends.
    async fn amend(&self, node: &NodeName, change: impl FnOnce(&mut Entry)) {
        let _writing = self.writing.lock().await;
        let record = {
            let mut book = self.book();
            let Some(entry) = book.nodes.get_mut(node) else {
                return;
            };
            change(entry);
            let record = entry.record.clone();
            self.tell(&book);
            record
        };
        if let Err(error) = self.save(record).await {
            tracing::warn!(%node, error = %error.full_message(), "the record of a node is not written");
        }
    }
}
