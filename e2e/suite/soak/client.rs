// SPDX-License-Identifier: Apache-2.0
//! A platform and a kubelet that nothing deters: whatever fails is tried again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::cri::{Annotations, ContainerSpec, Cri, Pod, PodSpec};

use super::Shared;
use crate::{
    node::{NAMESPACE, Node, connect},
    verbs::av,
};

/// Longer than all faults that can come in a row.
const AT_LAST: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(200);

/// What the command line exits with for what is not there.
const NOT_FOUND: &str = "exit status: 4:";

pub(super) struct Client {
    dir: PathBuf,
    pub(super) cri: Cri,
    shared: Arc<Shared>,
    /// What it is about, for people.
    pub(super) at: Arc<std::sync::Mutex<String>>,
}

impl Client {
    pub(super) fn new(node: &Node, shared: Arc<Shared>) -> Self {
        Self {
            dir: node.dir.clone(),
            cri: connect(&node.dir).with_cgroup_parent(&node.cgroup_parent),
            shared,
            at: Arc::default(),
        }
    }

    /// Tries until it succeeds.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let start = Instant::now();
        loop {
            let error = match attempt(self) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            *self.at.lock().unwrap_or_else(|e| e.into_inner()) = format!("{what}: {error}");
            if self.shared.failed.load(Ordering::Relaxed) {
                return Err(format!("{what}: others have failed; here: {error}"));
            }
            if start.elapsed() > AT_LAST {
                return Err(format!("{what}: not within {AT_LAST:?}: {error}"));
            }
            self.shared.counts.retries.fetch_add(1, Ordering::Relaxed);
            thread::sleep(AGAIN);
        }
    }

    /// A verb of our command line.
    pub(super) fn verb(&self, arguments: &[&str]) -> Result<String, String> {
        let text = arguments.join(" ");
        self.until(&text, |c| match av(&c.dir, arguments) {
            Err(error) if error.starts_with(NOT_FOUND) && text.contains(" delete ") => {
                Ok(String::new())
            }
            said => said,
        })
    }

    /// A pod that runs. What a try without an answer left is removed.
    pub(super) fn run_pod(&self, name: &str, annotations: &Annotations) -> Result<Pod, String> {
        let mut tries = 0;
        self.until(&format!("pod {name}"), |c| {
            tries += 1;
            let name = format!("{name}-{tries}");
            let spec = PodSpec::new(NAMESPACE, &name).annotated(annotations);
            c.cri.run_pod(&spec).map_err(|e| {
                let _ = c.remove_named(&name);
                e.to_string()
            })
        })
    }

    fn remove_named(&self, name: &str) -> Result<(), String> {
        self.until(&format!("pod {name} is removed"), |c| {
            for id in c.cri.pods().map_err(|e| e.to_string())? {
                let (status, _) = c.cri.pod_status(&id).map_err(|e| e.to_string())?;
                if status.metadata.is_some_and(|m| m.name == name) {
                    c.cri.remove_all(&id).map_err(|e| e.to_string())?;
                }
            }
            Ok(())
        })
    }

    /// Its containers first: a sandbox that is removed with containers in it, while a
    /// plugin connects, can lock up containerd for good (docs/limitations.md).
    pub(super) fn remove_pod(&self, pod: &Pod) -> Result<(), String> {
        self.until("the pod is removed", |c| {
            c.cri.remove_all(&pod.id).map_err(|e| e.to_string())
        })
    }

    /// A container that runs, after so many others of its name.
    pub(super) fn run_container(
        &self,
        pod: &Pod,
        spec: &ContainerSpec,
        attempt: &mut u32,
    ) -> Result<String, String> {
        let id = self.until("the container runs", |c| {
            *attempt += 1;
            let spec = spec.clone().attempt(*attempt);
            let created = c.cri.create_container(pod, &spec);
            let id = created.map_err(|e| e.to_string())?;
            c.cri.start_container(&id).map_err(|e| {
                let _ = c.cri.remove_container(&id);
                e.to_string()
            })?;
            Ok(id)
        })?;
        self.shared
            .counts
            .containers
            .fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    pub(super) fn stop_container(&self, id: &str) -> Result<(), String> {
        self.until("the container stops", |c| {
            c.cri.stop_container(id).map_err(|e| e.to_string())
        })
    }

    /// A line of shell, once.
    pub(super) fn shell(&self, container: &str, line: &str) -> Result<String, String> {
        let output = self
            .cri
            .exec(container, &["/bin/busybox", "sh", "-c", line])
            .map_err(|e| e.to_string())?;
        match output.code {
            0 => Ok(output.stdout),
            code => Err(format!("{code}: {}", output.stderr)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}
