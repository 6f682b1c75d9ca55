// SPDX-License-Identifier: Apache-2.0
//! A service behind a door, and who counts what the door refuses.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use actor_volumes::{
    proto::api::{
        AgentStatus, CheckContainerRequest, CheckContainerResponse, DrainStatus,
        GetAgentStatusRequest, GiveContainerRequest, GiveContainerResponse,
        ReleaseContainerRequest, ReleaseContainerResponse, SetDrainingRequest,
        agent_client::AgentClient,
        agent_server::{Agent, AgentServer},
    },
    transport::{self, Channel, Gate, Kind, Limits, Refused, Rules, Watcher},
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tonic::{Request, Response, Status};

/// Long enough for anything that works, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What was refused, and how many connections there are.
#[derive(Default)]
pub(crate) struct Counted {
    refused: Mutex<Vec<Refused>>,
    connections: Mutex<(usize, usize)>,
}

impl Watcher for Counted {
    fn refused(&self, _: &'static str, why: Refused) {
        self.refused.lock().unwrap().push(why);
    }

    fn connections(&self, _: &'static str, now: usize) {
        let mut seen = self.connections.lock().unwrap();
        *seen = (now, seen.1.max(now));
    }
}

impl Counted {
    pub(crate) fn refused(&self) -> Vec<Refused> {
        self.refused.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().unwrap().0
    }

    pub(crate) fn most_connections(&self) -> usize {
        self.connections.lock().unwrap().1
    }
}

/// A service whose answers wait, or which breaks, as the container's name says.
#[derive(Clone)]
pub(crate) struct Service {
    /// Those that wait are let go by it.
    pub(crate) go: Arc<Semaphore>,
    /// One permit for each that has come to its handler.
    pub(crate) came: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self {
            go: none(),
            came: none(),
        }
    }

    /// Waits until so many have come to their handlers.
    pub(crate) async fn have_come(&self, number: u32) {
        let came = tokio::time::timeout(SOON, self.came.acquire_many(number));
        came.await.expect("they come").unwrap().forget();
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn check_container(
        &self,
        request: Request<CheckContainerRequest>,
    ) -> Result<Response<CheckContainerResponse>, Status> {
        self.came.add_permits(1);
        match request.into_inner().container_name.as_str() {
            "waits" => self.go.acquire().await.unwrap().forget(),
            "breaks" => panic!("what only the log has"),
            _ => {}
        }
        Ok(Response::new(CheckContainerResponse {}))
    }

    async fn give_container(
        &self,
        _: Request<GiveContainerRequest>,
    ) -> Result<Response<GiveContainerResponse>, Status> {
        Ok(Response::new(GiveContainerResponse::default()))
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Ok(Response::new(ReleaseContainerResponse::default()))
    }

    async fn get_agent_status(
        &self,
        _: Request<GetAgentStatusRequest>,
    ) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(AgentStatus::default()))
    }

    async fn set_draining(
        &self,
        _: Request<SetDrainingRequest>,
    ) -> Result<Response<DrainStatus>, Status> {
        Ok(Response::new(DrainStatus::default()))
    }
}

/// One of each kind.
pub(crate) fn kinds(path: &str) -> Kind {
    match path.rsplit('/').next() {
        Some("GetAgentStatus") => Kind::Asks,
        Some("SetDraining") => Kind::Frees,
        _ => Kind::Other,
    }
}

/// A door on a unix socket with the service behind it.
pub(crate) struct Hall {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) counted: Arc<Counted>,
    pub(crate) service: Service,
    serving: JoinHandle<()>,
}

impl Hall {
    pub(crate) async fn open(limits: Limits) -> Self {
        Self::with(Rules {
            limits,
            ..Rules::default()
        })
        .await
    }

    pub(crate) async fn with(rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let counted = Arc::new(Counted::default());
        let service = Service::new();
        let gate = Gate::new(Rules {
            kinds,
            watcher: counted.clone(),
            ..rules
        });
        let incoming = gate.bind(&socket).await.unwrap();
        let serving = gate
            .server()
            .add_service(AgentServer::new(service.clone()))
            .serve_with_incoming(incoming);
        Self {
            dir,
            socket,
            counted,
            service,
            serving: tokio::spawn(async move { serving.await.unwrap() }),
        }
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> AgentClient<Channel> {
        AgentClient::new(transport::connect(&self.socket, SOON).await.unwrap())
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A request whose handler does what the name says.
pub(crate) fn container(name: &str) -> CheckContainerRequest {
    CheckContainerRequest {
        container_name: name.into(),
        ..CheckContainerRequest::default()
    }
}

/// Waits until it is so.
pub(crate) async fn at_last(what: &str, is: impl Fn() -> bool) {
    let end = std::time::Instant::now() + SOON;
    while !is() {
        assert!(
            std::time::Instant::now() < end,
            "not within {SOON:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
