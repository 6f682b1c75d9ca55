// SPDX-License-Identifier: Apache-2.0
//! The runtime of the node: pods come and go whether the daemon lives or not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use actor_volumes::proto::nri::{Container, PodSandbox};
use testkit::{
    nri::{PluginHandle, Runtime, Version},
    runtime::ListedRuntime,
};

use crate::daemon::Daemon;

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

pub(crate) struct Host {
    listed: ListedRuntime,
    runtime: Runtime,
    plugin: Option<PluginHandle>,
    /// The pod that runs.
    pod: Option<PodSandbox>,
    count: u32,
}

impl Host {
    pub(crate) async fn start(dir: &Path) -> Self {
        Self {
            listed: ListedRuntime::start(&dir.join("cri.sock")).await,
            runtime: Runtime::listen(dir, Version::CONTAINERD_2_3),
            plugin: None,
            pod: None,
            count: 0,
        }
    }

    /// The plugin that is connected now.
    async fn plugin(&mut self, daemon: &mut Daemon) -> Option<PluginHandle> {
        daemon.revive();
        if let Some(plugin) = &self.plugin
            && plugin.is_connected()
        {
            return Some(plugin.clone());
        }
        let waiting = self.runtime.wait_plugin();
        self.plugin = tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .ok();
        self.plugin.clone()
    }

    /// Runs a pod with one container, as a kubelet does: until it is created with
    /// its mounts. Gives where the volumes are on the host, by their mount paths.
    pub(crate) async fn run(
        &mut self,
        daemon: &mut Daemon,
        annotations: BTreeMap<String, String>,
    ) -> BTreeMap<String, PathBuf> {
        self.count += 1;
        let pod = PodSandbox {
            id: format!("s-{}", self.count),
            name: format!("pod-{}", self.count),
            namespace: "agents".into(),
            annotations: annotations.into_iter().collect(),
            ..Default::default()
        };
        self.listed.set(|lists| {
            lists.sandboxes.insert(pod.id.clone(), true);
        });
        self.pod = Some(pod.clone());
        let start = Instant::now();
        let mut last = String::from("no plugin is connected");
        while start.elapsed() < SOON {
            if let Some(plugin) = self.plugin(daemon).await {
                let _ = plugin.run_pod_sandbox(pod.clone()).await;
                let container = Container {
                    id: format!("{}-c", pod.id),
                    pod_sandbox_id: pod.id.clone(),
                    name: "agent".into(),
                    ..Default::default()
                };
                match plugin.create_container(pod.clone(), container).await {
                    Ok(adjustment) if adjustment.mounts.is_empty() => {
                        last = "created without its mounts: the plugin died".into();
                    }
                    Ok(adjustment) => {
                        let mounts = adjustment.mounts.into_iter();
                        return mounts.map(|m| (m.destination, m.source.into())).collect();
                    }
                    Err(status) => last = status.message,
                }
            }
            tokio::time::sleep(MOMENT).await;
        }
        panic!("run: {last}\n{}", daemon.log());
    }

    /// The pod ends, if one runs. Whether the plugin hears of it depends on whether
    /// it lives.
    pub(crate) async fn end(&mut self, daemon: &mut Daemon) {
        let Some(pod) = self.pod.take() else { return };
        self.listed.set(|lists| {
            lists.sandboxes.remove(&pod.id);
        });
        if let Some(plugin) = self.plugin(daemon).await {
            let _ = plugin.stop_pod_sandbox(pod).await;
        }
    }
}
