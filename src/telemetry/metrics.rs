// SPDX-License-Identifier: Apache-2.0
//! What is counted. Labels are few and of known values; only how full a volume is
//! is told of each actor, while its volume is published here.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{Doors, Population, Usage};
use crate::error::Kind;

/// The metrics of one process.
pub struct Metrics {
    registry: Mutex<Registry>,
    steps: Family<StepLabels, Counter>,
    containers: Family<ResultLabels, Counter>,
    guard: Family<ResultLabels, Counter>,
    unmatched: Counter,
    nri: Gauge,
    nri_lost: Counter,
    csi: Family<CallLabels, Counter>,
    csi_took: Family<CallNameLabels, Histogram>,
    broken: Family<CallNameLabels, Counter>,
    corrupted: Family<DriverLabels, Counter>,
    stuck: Gauge,
    draining: Gauge,
    uncertain: Gauge,
    breaches: Gauge,
    breached: Counter,
    denials: Family<RuleLabels, Counter>,
    usage: Usage,
    doors: Doors,
    population: Population,
    before_look: OnceLock<Box<Look>>,
    nodes: Family<StateLabels, Gauge>,
    doubles: Gauge,
    /// Whether there is no NRI to be ready for.
    no_nri: AtomicBool,
}

/// Counts the population before it is read.
type Look = dyn Fn(&Population) + Send + Sync;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    driver: String,
    rpc: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallNameLabels {
    driver: String,
    rpc: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriverLabels {
    driver: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// From a driver that answers from memory to one that runs into its deadline.
const CALL_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    rule: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("actor_volumes");
        registry.register(
            "build",
            "What is running",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let steps = Family::default();
        registry.register(
            "node_steps",
            "Steps of the volumes on this node, by step and gRPC code",
            steps.clone(),
        );
        let containers = Family::default();
        registry.register(
            "containers",
            "Creations of containers that ask for volumes",
            containers.clone(),
        );
        let guard = Family::default();
        registry.register(
            "guard_checks",
            "Containers that the guard in the OCI runtime's place asked about",
            guard.clone(),
        );
        let unmatched = Counter::default();
        registry.register(
            "unmatched_grants",
            "Sandboxes that ended without a container that matched their grant",
            unmatched.clone(),
        );
        let nri = Gauge::default();
        registry.register(
            "nri_synchronized",
            "Whether the runtime's NRI is connected and synchronized",
            nri.clone(),
        );
        let nri_lost = Counter::default();
        registry.register(
            "nri_disconnects",
            "How often the NRI connection was lost",
            nri_lost.clone(),
        );
        let csi = Family::default();
        registry.register(
            "csi_calls",
            "Calls to CSI drivers, by driver, RPC and gRPC code",
            csi.clone(),
        );
        let csi_took: Family<CallNameLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        registry.register_with_unit(
            "csi_call_duration",
            "How long calls to CSI drivers take",
            Unit::Seconds,
            csi_took.clone(),
        );
        let broken = Family::default();
        registry.register(
            "node_broken_promises",
            "Answers of OK whose effect is not to be seen, by driver and RPC",
            broken.clone(),
        );
        let corrupted = Family::default();
        registry.register(
            "node_corrupted_mounts",
            "Published mounts whose file system was found gone, by driver",
            corrupted.clone(),
        );
        let stuck = Gauge::default();
        registry.register(
            "node_stuck_helpers",
            "Helper processes that hang in the kernel and cannot be killed",
            stuck.clone(),
        );
        let draining = Gauge::default();
        registry.register(
            "node_draining",
            "Whether the node takes no new pods with volumes",
            draining.clone(),
        );
        let uncertain = Gauge::default();
        registry.register(
            "node_scopes_uncertain",
            "Scopes of which it is not certain whether the runtime still has them",
            uncertain.clone(),
        );
        let breaches = Gauge::default();
        registry.register(
            "node_containers_without_volumes",
            "Containers that run without a volume that they ask for",
            breaches.clone(),
        );
        let breached = Counter::default();
        registry.register(
            "node_containers_found_without_volumes",
            "Containers that were found to run without a volume that they ask for",
            breached.clone(),
        );
        let denials = Family::default();
        registry.register(
            "policy_denials",
            "Containers that the policy of this node forbids, by rule",
            denials.clone(),
        );
        let nodes: Family<StateLabels, Gauge> = Family::default();
        registry.register(
            "nodes",
            "Nodes that the control plane knows, by state",
            nodes.clone(),
        );
        let doubles = Gauge::default();
        registry.register(
            "possible_double_writers",
            "Volumes that were fenced off and are still in use on a node that is back",
            doubles.clone(),
        );
        Self {
            nodes,
            doubles,
            no_nri: AtomicBool::new(false),
            usage: Usage::register(&mut registry),
            doors: Doors::register(&mut registry),
            population: Population::register(&mut registry),
            before_look: OnceLock::new(),
            broken,
            corrupted,
            stuck,
            draining,
            uncertain,
            breaches,
            breached,
            denials,
            csi,
            csi_took,
            registry: Mutex::new(registry),
            steps,
            containers,
            guard,
            unmatched,
            nri,
            nri_lost,
        }
    }
}

impl Metrics {
    /// A call to a CSI driver was answered with this code, or not at all.
    pub fn csi_call(
        &self,
        driver: &str,
        rpc: &'static str,
        code: &'static str,
        took: std::time::Duration,
    ) {
        let driver = driver.to_owned();
        let labels = CallNameLabels {
            driver: driver.clone(),
            rpc,
        };
        self.csi_took
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        let labels = CallLabels { driver, rpc, code };
        self.csi.get_or_create(&labels).inc();
    }

    /// A step of a volume was taken; `failed` says how it failed.
    pub fn step(&self, step: &'static str, failed: Option<Kind>) {
        let code = failed.map_or("OK", Kind::as_str);
        self.steps.get_or_create(&StepLabels { step, code }).inc();
    }

    /// A container that asks for volumes was answered.
    pub fn container(&self, ok: bool) {
        let result = if ok { "mounted" } else { "refused" };
        self.containers
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// The guard asked about a container.
    pub fn guard(&self, ok: bool) {
        let result = if ok { "right" } else { "refused" };
        self.guard.get_or_create(&ResultLabels { result }).inc();
    }

    /// A sandbox ended without a container that matched its grant.
    pub fn unmatched_grant(&self) {
        self.unmatched.inc();
    }

    /// The NRI connection is synchronized, or not.
    pub fn nri(&self, synchronized: bool) {
        self.nri.set(synchronized.into());
    }

    /// This process has no node: there is no NRI to be ready for.
    pub fn without_nri(&self) {
        self.no_nri.store(true, Ordering::Relaxed);
    }

    /// Whether the NRI connection is synchronized, where there is one.
    pub fn is_ready(&self) -> bool {
        self.nri.get() == 1 || self.no_nri.load(Ordering::Relaxed)
    }

    /// So many nodes are in each state, and so many volumes may have two writers.
    pub fn nodes(&self, states: &BTreeMap<&'static str, usize>, double_writers: usize) {
        let as_gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.nodes.clear();
        for (state, count) in states {
            let labels = StateLabels { state };
            self.nodes.get_or_create(&labels).set(as_gauge(*count));
        }
        self.doubles.set(as_gauge(double_writers));
    }

    /// The NRI connection was lost.
    pub fn nri_lost(&self) {
        self.nri_lost.inc();
    }

    /// The driver answered OK to this RPC, and its effect is not to be seen.
    pub fn broken_promise(&self, driver: &str, rpc: &'static str) {
        let labels = CallNameLabels {
            driver: driver.to_owned(),
            rpc,
        };
        self.broken.get_or_create(&labels).inc();
    }

    /// The file system of a published mount was found gone.
    pub fn corrupted_mount(&self, driver: &str) {
        let labels = DriverLabels {
            driver: driver.to_owned(),
        };
        self.corrupted.get_or_create(&labels).inc();
    }

    /// So many more helper processes hang in the kernel.
    pub fn stuck_helpers(&self, more: i64) {
        self.stuck.inc_by(more);
    }

    /// Whether the node is being emptied.
    pub fn draining(&self, is: bool) {
        self.draining.set(is.into());
    }

    /// Of so many scopes it is not certain whether they live.
    pub fn uncertain(&self, now: usize) {
        self.uncertain.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// So many containers run without a volume that they ask for.
    pub fn breaches(&self, now: usize) {
        self.breaches.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// One more was found.
    pub fn breach(&self) {
        self.breached.inc();
    }

    /// The policy forbids a container by this rule.
    pub fn policy_denial(&self, rule: &'static str) {
        self.denials.get_or_create(&RuleLabels { rule }).inc();
    }

    /// How full the volumes of actors are.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What comes in by the doors.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Who sets what there is before each look. Only the first to say so counts.
    pub fn before_look(&self, set: impl Fn(&Population) + Send + Sync + 'static) {
        let _ = self.before_look.set(Box::new(set));
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        if let Some(set) = self.before_look.get() {
            set(&self.population);
        }
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::default();
        metrics.step("publish", Some(Kind::Unavailable));
        metrics.container(true);
        metrics.policy_denial("drivers");
        metrics.nodes(&[("Ready", 2), ("Away", 1)].into(), 0);
        metrics.nodes(&[("Ready", 3)].into(), 1);
        metrics.before_look(|population| {
            population.set(&[("Suspended".into(), 7)].into(), &[].into(), 1);
            population.repairs("ControllerPublishVolume", 2);
        });
        metrics.text().unwrap();
        let text = metrics.text().unwrap();
        for line in [
            "actor_volumes_actors{phase=\"Suspended\"} 7",
            "actor_volumes_actors_in_memory 1",
            "actor_volumes_attachment_repairs_total{call=\"ControllerPublishVolume\"} 2",
            "actor_volumes_node_steps_total{step=\"publish\",code=\"UNAVAILABLE\"} 1",
            "actor_volumes_containers_total{result=\"mounted\"} 1",
            "actor_volumes_policy_denials_total{rule=\"drivers\"} 1",
            "actor_volumes_nri_synchronized 0",
            "actor_volumes_nodes{state=\"Ready\"} 3",
            "actor_volumes_possible_double_writers 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("Away"), "no node is away any more");
    }
}
