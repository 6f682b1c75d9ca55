// SPDX-License-Identifier: Apache-2.0
//! A whole life of an actor, each step repeated until it is done, whoever dies
//! meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use actor_volumes::{
    error::{Kind, Result},
    host::mountinfo,
    proto::{
        api,
        nri::{Container, PodSandbox},
    },
    rpc::Client,
};
use testkit::{
    csi::{Backend, CsiDriver, Options},
    nri::{PluginHandle, Runtime, Version},
    runtime::ListedRuntime,
};

use crate::daemon::{DRIVER, Daemon};

const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Story {
    dir: tempfile::TempDir,
    driver: CsiDriver,
    listed: ListedRuntime,
    runtime: Runtime,
    plugin: Option<PluginHandle>,
    daemon: Daemon,
}

impl Story {
    /// Tells it; gives how the daemon died meanwhile.
    pub(crate) async fn tell(crash: Option<(&str, u32)>) -> Vec<ExitStatus> {
        let dir = tempfile::Builder::new().prefix("av").tempdir().unwrap();
        let options = Options {
            attach: true,
            ..Options::new(Backend::Bind {
                root: dir.path().join("backend"),
            })
        };
        let driver = CsiDriver::start_with(&dir.path().join("csi.sock"), options).await;
        let listed = ListedRuntime::start(&dir.path().join("cri.sock")).await;
        let runtime = Runtime::listen(dir.path(), Version::CONTAINERD_2_3);
        let daemon = Daemon::start(dir.path(), crash);
        let mut story = Self {
            dir,
            driver,
            listed,
            runtime,
            plugin: None,
            daemon,
        };
        story.live().await;
        std::mem::take(&mut story.daemon.exits)
    }

    async fn live(&mut self) {
        self.set_up().await;
        let mut written = None;
        for life in 1..=2 {
            let annotations = self.resume().await;
            let pod = PodSandbox {
                id: format!("s-{life}"),
                name: format!("pod-{life}"),
                namespace: "agents".into(),
                annotations: annotations.into_iter().collect(),
                ..Default::default()
            };
            let path = self.run(&pod).await;
            let found = fs::read_to_string(path.join("written")).ok();
            assert_eq!(found, written, "life {life}");
            let text = format!("in life {life}");
            fs::write(path.join("written"), &text).unwrap();
            written = Some(text);
            self.end(pod).await;
            self.suspend().await;
        }
        self.delete().await;
        self.nothing_is_left().await;
    }

    /// Repeats a verb until the daemon answers it with success.
    async fn repeat<T>(
        &mut self,
        what: &str,
        mut verb: impl AsyncFnMut(&mut Client) -> Result<T>,
    ) -> T {
        let start = Instant::now();
        let mut last = String::from("the daemon does not answer");
        while start.elapsed() < SOON {
            if let Some(mut client) = self.daemon.client().await {
                match verb(&mut client).await {
                    Ok(answer) => return answer,
                    Err(error) => last = error.full_message(),
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: {last}\n{}", self.daemon.log());
    }

    async fn set_up(&mut self) {
        let class =
            format!("kind: StorageClass\nmetadata: {{name: pool}}\nprovisioner: {DRIVER}\n");
        let template = "kind: ActorTemplate\nmetadata: {name: t}\nspec:\n  containers:\n  - {name: agent, volumeMounts: [{name: vol1, mountPath: /my-data}]}\n  volumes:\n  - {name: vol1, externalVolumeTemplate: {capacity: 1Mi, storageClassName: pool}}\n";
        self.repeat("set-up", async |client| {
            let text = class.clone();
            client
                .apply_storage_class(api::ApplyStorageClassRequest { text })
                .await?;
            let text = template.to_owned();
            client
                .apply_template(api::ApplyTemplateRequest { text })
                .await?;
            client
                .create_actor(api::CreateActorRequest {
                    namespace: "agents".into(),
                    name: "a".into(),
                    template: "t".into(),
                    wait: true,
                    timeout_ms: 10_000,
                    ..Default::default()
                })
                .await
        })
        .await;
    }

    async fn resume(&mut self) -> BTreeMap<String, String> {
        let resumed = self.repeat("resume", async |client| {
            client
                .resume_actor(api::ResumeActorRequest {
                    namespace: "agents".into(),
                    name: "a".into(),
                    timeout_ms: 10_000,
                    ..Default::default()
                })
                .await
        });
        resumed.await.annotations.into_iter().collect()
    }

    async fn suspend(&mut self) {
        self.repeat("suspend", async |client| {
            client
                .suspend_actor(api::SuspendActorRequest {
                    namespace: "agents".into(),
                    name: "a".into(),
                    wait: true,
                    timeout_ms: 10_000,
                    ..Default::default()
                })
                .await
        })
        .await;
    }

    async fn delete(&mut self) {
        self.repeat("delete", async |client| {
            let request = api::DeleteActorRequest {
                namespace: "agents".into(),
                name: "a".into(),
                wait: true,
                timeout_ms: 10_000,
                ..Default::default()
            };
            match client.delete_actor(request).await {
                Err(e) if e.kind() == Kind::NotFound => Ok(()),
                other => other.map(drop),
            }
        })
        .await;
    }

    /// The plugin that is connected now.
    async fn plugin(&mut self) -> Option<PluginHandle> {
        self.daemon.revive();
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
    /// its mount. Gives where the volume is on the host.
    async fn run(&mut self, pod: &PodSandbox) -> PathBuf {
        self.listed.set(|lists| {
            lists.sandboxes.insert(pod.id.clone(), true);
        });
        let start = Instant::now();
        let mut last = String::from("no plugin is connected");
        while start.elapsed() < SOON {
            if let Some(plugin) = self.plugin().await {
                let _ = plugin.run_pod_sandbox(pod.clone()).await;
                let container = Container {
                    id: format!("{}-c", pod.id),
                    pod_sandbox_id: pod.id.clone(),
                    name: "agent".into(),
                    ..Default::default()
                };
                match plugin.create_container(pod.clone(), container).await {
                    Ok(adjustment) => {
                        if let Some(mount) = adjustment.mounts.first() {
                            return mount.source.clone().into();
                        }
                        last = "created without its mount: the plugin died".into();
                    }
                    Err(status) => last = status.message,
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("run: {last}\n{}", self.daemon.log());
    }

    /// The pod ends. Whether the plugin hears of it depends on whether it lives.
    async fn end(&mut self, pod: PodSandbox) {
        self.listed.set(|lists| {
            lists.sandboxes.remove(&pod.id);
        });
        if let Some(plugin) = self.plugin().await {
            let _ = plugin.stop_pod_sandbox(pod).await;
        }
    }

    async fn nothing_is_left(&mut self) {
        let root = self.dir.path().join("m");
        let start = Instant::now();
        loop {
            self.daemon.revive();
            let mounts: Vec<_> = mountinfo::own()
                .unwrap()
                .into_iter()
                .map(|m| m.mount_point)
                .filter(|path| path.starts_with(&root))
                .collect();
            let left = [
                entries(&root),
                entries(&self.dir.path().join("state/records")),
            ];
            let volumes = self.driver.volumes();
            if mounts.is_empty() && volumes.is_empty() && left.iter().all(Vec::is_empty) {
                break;
            }
            assert!(
                start.elapsed() < SOON,
                "left: mounts {mounts:?}, volumes {volumes:?}, files {left:?}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(self.driver.violations(), Vec::<String>::new());
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten();
    found.map(|entry| entry.unwrap().path()).collect()
}
