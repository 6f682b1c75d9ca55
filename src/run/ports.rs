// SPDX-License-Identifier: Apache-2.0
//! Joins the control plane and the node agent of one process: neither imports
//! the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    control::{Control, NodePort, nodes::NodeWatcher},
    csi::{Observer, VolumeStats},
    error::{Error, Result},
    model::{DriverName, Generation, Grant, NodeName, VolumeKey},
    node::{Agent, Authority},
    telemetry::Metrics,
};

/// The one node of this host, as the control plane sees it. It is filled once
/// the node agent runs; until then every call is answered with "not yet".
pub(super) struct LocalNode {
    pub(super) name: NodeName,
    pub(super) agent: OnceLock<Arc<Agent>>,
}

impl LocalNode {
    fn agent(&self, node: &NodeName) -> Result<&Arc<Agent>> {
        if *node != self.name {
            return Err(Error::not_found(format!(
                "node {node} is not known here: this control plane serves {} alone",
                self.name
            )));
        }
        self.agent
            .get()
            .ok_or_else(|| Error::unavailable(format!("the node agent of {node} is starting")))
    }
}

#[tonic::async_trait]
impl NodePort for LocalNode {
    async fn revoke(
        &self,
        node: &NodeName,
        volume: &VolumeKey,
        generation: Generation,
    ) -> Result<()> {
        self.agent(node)?.revoke(volume, generation).await
    }

    async fn held(&self, node: &NodeName, volume: &VolumeKey) -> Result<Option<String>> {
        Ok(self.agent(node)?.held(volume).await)
    }

    async fn released(&self, node: &NodeName) {
        match self.agent(node) {
            // An agent that ends takes the whole process with it.
            Ok(agent) => {
                let _ = agent.releases().changed().await;
            }
            Err(_) => std::future::pending().await,
        }
    }

    async fn forget(&self, node: &NodeName, volume: &VolumeKey) -> Result<()> {
        self.agent(node)?.forget(volume).await
    }

    async fn quiet(&self, node: &NodeName, volume: &VolumeKey, length: Duration) -> Result<()> {
        self.agent(node)?.quiet(volume, length).await
    }

    async fn unquiet(&self, node: &NodeName, volume: &VolumeKey) {
        // Without an agent there is nothing that is quiet.
        if let Ok(agent) = self.agent(node) {
            agent.unquiet(volume).await;
        }
    }

    async fn expand(&self, node: &NodeName, volume: &VolumeKey, bytes: u64) -> Result<bool> {
        self.agent(node)?.expand(volume, bytes).await
    }

    async fn stats(&self, node: &NodeName, volume: &VolumeKey) -> Result<Option<VolumeStats>> {
        self.agent(node)?.stats(volume).await
    }
}

/// Counts the nodes.
pub(super) struct Counted(pub(super) Arc<Metrics>);

impl NodeWatcher for Counted {
    fn changed(&self, states: &BTreeMap<&'static str, usize>, possible_double_writers: usize) {
        self.0.nodes(states, possible_double_writers);
    }
}

/// Counts the calls to CSI drivers.
pub(super) struct CountedCalls(pub(super) Arc<Metrics>);

impl Observer for CountedCalls {
    fn called(&self, driver: &DriverName, rpc: &'static str, code: &'static str, took: Duration) {
        self.0.csi_call(driver.as_str(), rpc, code, took);
    }
}

/// The control plane's current word, as the node agent asks for it.
pub(super) struct CurrentWord(pub(super) Arc<Control>);

impl Authority for CurrentWord {
    fn current(&self, presented: &Grant) -> Result<Grant> {
        let actor = presented.actor_ref();
        let Some(current) = self.0.current_grant(&actor) else {
            return Err(Error::precondition(format!(
                "the grant of actor {actor} is over: the actor is not resumed; resume it and use the annotations that this gives"
            )));
        };
        if !presented.same_word(&current) {
            return Err(Error::precondition(format!(
                "the grant of actor {actor} is over, or was changed: it is not what the control plane has granted now (generation {} is presented, {} is current); resume the actor and use the annotations that this gives",
                presented.generation(),
                current.generation()
            )));
        }
        Ok(current)
    }
}
