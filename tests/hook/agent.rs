// SPDX-License-Identifier: Apache-2.0
//! A node agent that publishes directories, and does what a test wants.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use actor_volumes::{
    api::annotation,
    delivery,
    host::mountinfo,
    model::{Grant, VolumeMode},
    proto::api::{
        AgentStatus, CheckContainerRequest, CheckContainerResponse, DrainStatus,
        GetAgentStatusRequest, GiveContainerRequest, GiveContainerResponse, GivenDevice,
        GivenMount, ReleaseContainerRequest, ReleaseContainerResponse, SetDrainingRequest,
        agent_server::{self, AgentServer},
    },
    transport,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Server};

/// What it does, and what it was asked.
#[derive(Default)]
pub(crate) struct Scene {
    pub(crate) given: Vec<GiveContainerRequest>,
    pub(crate) released: Vec<ReleaseContainerRequest>,
    pub(crate) checked: Vec<CheckContainerRequest>,
    /// It refuses with this.
    pub(crate) refuses: Option<(Code, &'static str)>,
    /// Its answer waits.
    pub(crate) waits: Duration,
    /// It tells another device than the one that is mounted.
    pub(crate) lies: bool,
    /// Of what its file systems are.
    pub(crate) no_exec: bool,
}

pub(crate) struct Agent {
    dir: PathBuf,
    scene: Arc<Mutex<Scene>>,
    end: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Serves at `agent.sock` in the directory.
    pub(crate) fn start(dir: &Path) -> Self {
        let scene = Arc::new(Mutex::new(Scene::default()));
        let end = CancellationToken::new();
        let service = AgentServer::new(Service {
            dir: dir.into(),
            scene: Arc::clone(&scene),
        });
        let (until, socket) = (end.clone(), dir.join("agent.sock"));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let incoming = transport::bind(&socket).await.unwrap();
                tell.send(()).unwrap();
                let server = Server::builder().add_service(service);
                let serving =
                    server.serve_with_incoming_shutdown(incoming, until.clone().cancelled_owned());
                tokio::select! {
                    served = serving => served.unwrap(),
                    // What waits is not waited for.
                    () = until.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        told.recv().unwrap();
        Self {
            dir: dir.into(),
            scene,
            end,
            thread: Some(thread),
        }
    }

    pub(crate) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// The files of a volume, on this host.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        let volume = self.dir.join("volumes").join(name);
        fs::create_dir_all(&volume).unwrap();
        volume
    }

    /// It dies.
    pub(crate) fn end(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
        let Ok(published) = fs::read_dir(self.dir.join("m")) else {
            return;
        };
        for at in published {
            let _ = rustix::mount::unmount(
                at.unwrap().path(),
                rustix::mount::UnmountFlags::NOFOLLOW | rustix::mount::UnmountFlags::DETACH,
            );
        }
    }
}

struct Service {
    dir: PathBuf,
    scene: Arc<Mutex<Scene>>,
}

impl Service {
    /// As the embedded driver does it: a bind of the volume's directory.
    fn publish(&self, name: &str) -> PathBuf {
        let volume = self.dir.join("volumes").join(name);
        let at = self.dir.join("m").join(name);
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(&at).unwrap();
        if !actor_volumes::host::mount::is_mount_point(&at).unwrap() {
            actor_volumes::host::mount::bind(&volume, &at, false).unwrap();
        }
        at
    }

    fn answer(&self, grant: &Grant, name: &str) -> GiveContainerResponse {
        let (lies, no_exec) = {
            let scene = self.scene.lock().unwrap();
            (scene.lies, scene.no_exec)
        };
        let mut answer = GiveContainerResponse {
            mount_root: self.dir.join("m").display().to_string(),
            ..GiveContainerResponse::default()
        };
        for volume in delivery::volumes_for(grant, name) {
            if volume.volume_mode == VolumeMode::Block {
                answer.devices.push(GivenDevice {
                    path: "/dev/raw".into(),
                    major: 7,
                    ..GivenDevice::default()
                });
                continue;
            }
            let source = self.publish(volume.name.as_str());
            let table = mountinfo::own().unwrap();
            let home = mountinfo::home(&table, &source).unwrap();
            let device = match lies {
                true => "0:1".into(),
                false => home.identity.device.clone(),
            };
            for mount in grant.mounts.iter().filter(|m| m.volume == volume.name) {
                answer.mounts.push(GivenMount {
                    destination: mount.mount_path.clone(),
                    source: source.display().to_string(),
                    read_only: mount.read_only,
                    no_exec,
                    device: device.clone(),
                    volume: volume.name.to_string(),
                    ..GivenMount::default()
                });
            }
        }
        answer.mounts.sort_by_key(|m| m.destination.clone());
        answer
    }
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    async fn check_container(
        &self,
        asked: Request<CheckContainerRequest>,
    ) -> Result<Response<CheckContainerResponse>, Status> {
        self.scene.lock().unwrap().checked.push(asked.into_inner());
        Ok(Response::new(CheckContainerResponse {}))
    }

    async fn give_container(
        &self,
        asked: Request<GiveContainerRequest>,
    ) -> Result<Response<GiveContainerResponse>, Status> {
        let asked = asked.into_inner();
        let (refuses, waits) = {
            let mut scene = self.scene.lock().unwrap();
            scene.given.push(asked.clone());
            (scene.refuses, scene.waits)
        };
        tokio::time::sleep(waits).await;
        if let Some((code, why)) = refuses {
            return Err(Status::new(code, why));
        }
        let annotations: BTreeMap<_, _> = asked.annotations.into_iter().collect();
        let presented = annotation::read(&annotations).unwrap().unwrap();
        Ok(Response::new(
            self.answer(&presented.grant, &asked.container_name),
        ))
    }

    async fn release_container(
        &self,
        asked: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        self.scene.lock().unwrap().released.push(asked.into_inner());
        Ok(Response::new(ReleaseContainerResponse {
            released: true,
            held_by: String::new(),
        }))
    }

    async fn get_agent_status(
        &self,
        _: Request<GetAgentStatusRequest>,
    ) -> Result<Response<AgentStatus>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn set_draining(
        &self,
        _: Request<SetDrainingRequest>,
    ) -> Result<Response<DrainStatus>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}
