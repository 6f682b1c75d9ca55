// SPDX-License-Identifier: Apache-2.0
//! `node ls`, `show`, `fence` and `reset`.

use std::sync::Arc;

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{Fence, Nodes, Standing};
use crate::{
    control::{
        Control,
        cell::blocking,
        index,
        lifecycle::{self, State},
    },
    error::{Error, Kind, Result},
    model::NodeName,
    proto::api::{self, node_admin_server},
    rpc::status_of,
};

/// The server side of `actorvolumes.v1.NodeAdmin`.
#[derive(Clone)]
pub struct NodeAdminService {
    control: Arc<Control>,
    nodes: Arc<Nodes>,
}

impl NodeAdminService {
    /// The service over the nodes of a control plane.
    pub fn new(control: Arc<Control>, nodes: Arc<Nodes>) -> Self {
        Self { control, nodes }
    }
}

impl Control {
    /// Whether the actor may be resumed on that node. One that is there already may
    /// ask again also while the node is away.
    pub(in crate::control) fn may_resume_on(&self, state: &State, node: &NodeName) -> Result<()> {
        if self.node_here() == Some(node) {
            return Ok(());
        }
        check_fenced(state, node)?;
        let placement = state.actor.as_ref().and_then(|a| a.placement.as_ref());
        let is_there = placement.is_some_and(|p| p.node == *node);
        match self.nodes.admits(node) {
            Err(error) if is_there && error.kind() == Kind::Unavailable => Ok(()),
            admitted => admitted,
        }
    }

    fn all_cells(&self) -> Vec<Arc<crate::control::cell::Cell>> {
        // Those with attachments are all in memory.
        let mut all = self.cells.all();
        all.extend(self.alone().values().cloned());
        all
    }

    /// Whether any volume is recorded as attached to the node.
    pub(super) async fn is_attached_to(&self, node: &NodeName) -> Result<bool> {
        let (store, prefix) = (self.store.clone(), index::attachments_of(node));
        let there = move || Ok(!store.index(&prefix, None, 1)?.items.is_empty());
        blocking(&self.tasks, there).await
    }

    /// Lets everything that waits for the node try again now.
    pub(super) fn node_is_back(self: &Arc<Self>, node: &NodeName) {
        self.untold.notify_one();
        let (control, node) = (self.clone(), node.clone());
        self.tasks.spawn(async move {
            let stop = control.stop.clone();
            let all = async {
                for cell in control.all_cells() {
                    let again = |state: &mut State| {
                        let at = |(uid, at): &(_, NodeName)| (*at == node).then(|| Clone::clone(uid));
                        let waiting: Vec<_> = state.attachments.keys().filter_map(at).collect();
                        for volume in &waiting {
                            lifecycle::try_at_once(state, volume);
                        }
                        Ok(())
                    };
                    if let Err(error) = control.change(&cell, again).await {
                        tracing::warn!(actor = %cell.name, error = %error.full_message(), "an actor that waits for a node was not woken");
                    }
                }
            };
            stop.run_until_cancelled(all).await;
        });
    }

    /// Nothing on the node needs to be released any more.
    async fn fence_everywhere(self: &Arc<Self>, node: &NodeName) -> Result<()> {
        for cell in self.all_cells() {
            let fenced = |state: &mut State| {
                lifecycle::fence(state, node);
                Ok(())
            };
            self.change(&cell, fenced).await?;
        }
        Ok(())
    }
}

/// Refuses to resume what a fence has ended and no verb yet.
fn check_fenced(state: &State, node: &NodeName) -> Result<()> {
    let is = |(at, attachment): (&(_, NodeName), &crate::control::record::AttachmentRecord)| {
        at.1 == *node && attachment.fenced
    };
    if state.attachments.iter().any(is) {
        return Err(Error::precondition(format!(
            "node {node} was fenced while the actor was resumed there, so its grant is over: suspend the actor first"
        )));
    }
    Ok(())
}

impl Nodes {
    /// Goes on with the fences that the end of the last process may have cut short.
    pub async fn start(&self, control: &Arc<Control>) -> Result<()> {
        let fenced: Vec<_> = {
            let book = self.book();
            let fenced = book.nodes.values().filter(|e| e.record.fenced.is_some());
            fenced.map(|e| e.record.name.clone()).collect()
        };
        for node in fenced {
            control.fence_everywhere(&node).await?;
        }
        Ok(())
    }

    /// An operator says that the node is off.
    pub async fn fence(
        &self,
        control: &Arc<Control>,
        node: &NodeName,
        confirm_off: bool,
        by: &str,
    ) -> Result<()> {
        self.one(node)?;
        if !confirm_off {
            return Err(Error::invalid(format!(
                "node {node} is not fenced: volumes that it has would be given to other nodes, and whoever still writes there destroys them; make sure that it is powered off, or cut from its storage, and say so with --confirm-off"
            )));
        }
        if self.is_here(node) {
            return Err(Error::precondition(format!(
                "node {node} is the control plane's own host: it is not off"
            )));
        }
        {
            let _writing = self.writing.lock().await;
            let mut record = {
                let book = self.book();
                let entry = book.nodes.get(node).ok_or_else(|| self.unknown(node))?;
                if entry.line.is_some() {
                    return Err(Error::precondition(format!(
                        "node {node} is connected, so it is not off: suspend its actors instead, or stop it first"
                    )));
                }
                entry.record.clone()
            };
            if record.fenced.is_none() {
                record.fenced = Some(Fence {
                    since: Timestamp::now(),
                    by: if by.is_empty() { "an operator" } else { by }.to_owned(),
                });
                self.save(record.clone()).await?;
            }
            tracing::warn!(%node, by, "the node is fenced");
            let mut book = self.book();
            if let Some(entry) = book.nodes.get_mut(node) {
                entry.record = record;
            }
            self.tell(&book);
        }
        control.fence_everywhere(node).await
    }

    /// An operator says that nothing runs of what the node's lost records held.
    pub async fn reset(
        &self,
        control: &Arc<Control>,
        node: &NodeName,
        confirm_nothing_runs: bool,
    ) -> Result<()> {
        self.one(node)?;
        if !confirm_nothing_runs {
            return Err(Error::invalid(format!(
                "node {node} is not reset: its volumes would be taken for released, and whoever still uses one there would lose it under way; make sure that no container with one of them runs and that nothing is mounted below its mount root (a reboot does both), and say so with --confirm-nothing-runs"
            )));
        }
        let line = {
            let book = self.book();
            let entry = book.nodes.get(node);
            let unsure = entry.filter(|e| e.standing == Standing::Unconfirmed);
            unsure.and_then(|e| e.line.clone()).ok_or_else(|| {
                Error::precondition(format!(
                    "node {node} needs no reset: that is for one which is connected and Unconfirmed"
                ))
            })?
        };
        let instance = Some(line.instance.clone());
        self.take_back(node, &line, instance).await?;
        control.node_is_back(node);
        Ok(())
    }
}

fn named(name: &str) -> Result<NodeName> {
    name.parse().map_err(|e: Error| e.context("name"))
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(answer: Result<T>) -> Answer<T> {
    answer.map(Response::new).map_err(|e| status_of(&e))
}

#[tonic::async_trait]
impl node_admin_server::NodeAdmin for NodeAdminService {
    async fn list_nodes(
        &self,
        _: Request<api::ListNodesRequest>,
    ) -> Answer<api::ListNodesResponse> {
        let nodes = self.nodes.all();
        answer(Ok(api::ListNodesResponse { nodes }))
    }

    async fn get_node(&self, request: Request<api::GetNodeRequest>) -> Answer<api::Node> {
        let name = named(&request.into_inner().name);
        answer(name.and_then(|name| self.nodes.one(&name)))
    }

    async fn fence_node(&self, request: Request<api::FenceNodeRequest>) -> Answer<api::Node> {
        let (request, service) = (request.into_inner(), self.clone());
        // A task of its own: a caller that goes away stops nothing half-way.
        let fenced = self.control.tasks.spawn(async move {
            let Self { control, nodes } = service;
            let name = named(&request.name)?;
            nodes
                .fence(&control, &name, request.confirm_off, &request.by)
                .await?;
            nodes.one(&name)
        });
        answer(fenced.await.unwrap_or_else(|e| {
            Err(Error::internal("the verb broke off: see the server's log").with_source(e))
        }))
    }

    async fn reset_node(&self, request: Request<api::ResetNodeRequest>) -> Answer<api::Node> {
        let request = request.into_inner();
        let reset = async {
            let name = named(&request.name)?;
            self.nodes
                .reset(&self.control, &name, request.confirm_nothing_runs)
                .await?;
            self.nodes.one(&name)
        };
        answer(reset.await)
    }
}
