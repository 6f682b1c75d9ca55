// SPDX-License-Identifier: Apache-2.0
//! The calls of the lifecycle, to whichever node they are for.

use std::time::Duration;

use super::{Nodes, Standing, away, returning};
use crate::{
    control::NodePort,
    csi::{NodeInfo, VolumeStats},
    error::{Error, Kind, Result},
    model::{ActorRef, DriverName, Generation, Grant, NodeName, VolumeKey},
    proto::api::{self, request::Call},
};

impl Nodes {
    async fn call(&self, node: &NodeName, volume: &VolumeKey, call: Call) -> Result<api::Answer> {
        self.line(node)?.call(volume, call).await
    }
}

#[tonic::async_trait]
impl NodePort for Nodes {
    async fn revoke(&self, node: &NodeName, volume: &VolumeKey, at: Generation) -> Result<()> {
        let call = Call::Revoke(api::RevokeCall { generation: at.0 });
        self.call(node, volume, call).await.map(drop)
    }

    async fn held(&self, node: &NodeName, volume: &VolumeKey) -> Result<Option<String>> {
        let call = Call::Held(api::HeldCall {});
        let by = self.call(node, volume, call).await?.held_by;
        Ok((!by.is_empty()).then_some(by))
    }

    async fn released(&self, node: &NodeName) {
        let hint = self.book().nodes.get(node).map(|e| e.released.subscribe());
        match hint {
            // Entries stay as long as the process.
            Some(mut hint) => {
                let _ = hint.changed().await;
            }
            None => std::future::pending().await,
        }
    }

    async fn forget(&self, node: &NodeName, volume: &VolumeKey) -> Result<()> {
        let call = Call::Forget(api::ForgetCall {});
        self.call(node, volume, call).await.map(drop)
    }

    async fn quiet(&self, node: &NodeName, volume: &VolumeKey, length: Duration) -> Result<()> {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let call = Call::Quiet(api::QuietCall { length_ms });
        self.call(node, volume, call).await.map(drop)
    }

    async fn unquiet(&self, node: &NodeName, volume: &VolumeKey) {
        // Where it cannot be said, the quiet ends by itself.
        let _ = self
            .call(node, volume, Call::Unquiet(api::UnquietCall {}))
            .await;
    }

    async fn expand(&self, node: &NodeName, volume: &VolumeKey, bytes: u64) -> Result<bool> {
        let call = Call::Expand(api::ExpandCall { bytes });
        Ok(self.call(node, volume, call).await?.expanded)
    }

    async fn stats(&self, node: &NodeName, volume: &VolumeKey) -> Result<Option<VolumeStats>> {
        let call = Call::Stats(api::StatsCall {});
        let stats = self.call(node, volume, call).await?.stats;
        if stats.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_str(&stats);
        read.map(Some).map_err(|e| {
            Error::internal(format!(
                "node {node} told of a volume's usage what cannot be read: update the older of the two"
            ))
            .with_source(e)
        })
    }

    async fn node_info(&self, node: &NodeName, driver: &DriverName) -> Result<Option<NodeInfo>> {
        if self.is_here(node) {
            return Ok(None);
        }
        let book = self.book();
        let entry = book.nodes.get(node).ok_or_else(|| self.unknown(node))?;
        let known = entry.record.drivers.get(driver).cloned();
        known.map(|d| Some(d.into())).ok_or_else(|| {
            Error::unavailable(format!(
                "node {node} has not told of CSI driver {driver}: name it in the configuration there and see that its node part runs"
            ))
        })
    }

    fn admits(&self, node: &NodeName) -> Result<()> {
        let book = self.book();
        let entry = book.nodes.get(node).ok_or_else(|| {
            let unknown = self.unknown(node);
            match self.is_here(node) {
                true => unknown,
                false => Error::precondition(unknown.full_message()),
            }
        })?;
        match (&entry.line, entry.standing, &entry.record.fenced) {
            (_, Standing::Unconfirmed, _) => Err(Error::precondition(entry.message())),
            (Some(_), _, Some(_)) => Err(Error::precondition(returning(node))),
            (None, _, Some(_)) => Err(Error::precondition(format!(
                "{}: resume the actor on another node, or bring this one back",
                away(entry)
            ))),
            (None, _, None) => Err(Error::unavailable(self.message(entry))),
            (Some(_), _, None) => Ok(()),
        }
    }

    fn possible_double_writers(&self, volume: &VolumeKey) -> Vec<String> {
        let book = self.book();
        let there = book.nodes.values().filter_map(|entry| {
            let holder = entry.doubles.get(volume)?;
            Some(format!("{holder} on node {}", entry.record.name))
        });
        there.collect()
    }

    fn keys(&self, pems: &[String]) {
        self.book().keys(pems);
    }

    fn word(&self, actor: &ActorRef, grant: Option<&Grant>) {
        self.book().word(actor, grant);
    }

    async fn told(&self, node: &NodeName) -> Result<()> {
        // Others are told as fast as the network is, and a pod that is faster is
        // asked to come again.
        if !self.is_here(node) {
            return Ok(());
        }
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Ok(line) = self.line(node) {
                match line.told().await {
                    Err(error) if error.kind() == Kind::Unavailable => {}
                    told => return told,
                }
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }
}
