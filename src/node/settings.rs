// SPDX-License-Identifier: Apache-2.0
//! What a node agent is told, and what it works with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::Layout;
use crate::{
    cri::Cri,
    csi::Registry,
    error::Result,
    keys::TrustedKeys,
    model::{DnsLabel, Grant, NodeName},
    policy::Policy,
    secret::Vault,
    telemetry::Metrics,
};

/// The part of the configuration that the node agent needs.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// This node's name in grants.
    pub name: NodeName,
    /// Where records and mounts lie.
    pub layout: Layout,
    /// Namespaces whose unsigned annotations are believed.
    pub trusted_namespaces: Vec<DnsLabel>,
    /// What pods may have of volumes.
    pub policy: Policy,
    /// The longest wait of one container's creation.
    pub max_wait: Duration,
    /// The share of any ten seconds that all waits may take, in percent.
    pub wait_percent: u8,
    /// How long a container scope outlives its last member.
    pub member_grace: Duration,
    /// How often the sweep runs.
    pub sweep_interval: Duration,
    /// How often containers are looked for that run without their volumes.
    pub breach_interval: Duration,
    /// Whether the sandboxes of those are stopped.
    pub stop_breaches: bool,
    /// How often drivers are asked how much of the volumes is used; zero: never.
    pub stats_interval: Duration,
    /// How often it is looked whether what is published is still of use; zero:
    /// only when a container is created.
    pub probe_interval: Duration,
    /// The socket of the helper, for what enters a volume.
    pub helper: PathBuf,
}

/// Who knows whether a grant is the current one.
pub trait Authority: Send + Sync {
    /// The grant as it stands now, with its contexts; an error if what is
    /// presented is not it. Called while the runtime waits: it must be quick.
    fn current(&self, presented: &Grant) -> Result<Grant>;

    /// The same for a grant that a trusted key has signed. Where nobody can be asked
    /// it may count by itself; whether its generations are over is then for the node's
    /// own records to say.
    fn current_signed(&self, presented: &Grant) -> Result<Grant> {
        self.current(presented)
    }
}

/// The world that the node agent works with.
pub struct Ports {
    /// The CSI drivers.
    pub drivers: Arc<Registry>,
    /// The container runtime, to read.
    pub cri: Cri,
    /// Who knows whether a grant is the current one.
    pub authority: Arc<dyn Authority>,
    /// Whose signatures count.
    pub keys: Arc<TrustedKeys>,
    /// The secrets of CSI calls.
    pub vault: Vault,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}
