// SPDX-License-Identifier: Apache-2.0
//! The node agent's calls on the control plane's socket: in `serve` there is one socket
//! for every verb. They are handed on to the node agent's own, which is there also while
//! the control plane is not.

use std::{path::PathBuf, time::Duration};

use tonic::{Request, Response, Status};

use crate::{
    proto::api::{
        AgentStatus, CheckContainerRequest, CheckContainerResponse, DrainStatus,
        GetAgentStatusRequest, GiveContainerRequest, GiveContainerResponse,
        ReleaseContainerRequest, ReleaseContainerResponse, SetDrainingRequest,
        agent_client::AgentClient, agent_server,
    },
    rpc::status_of,
    transport::{self, Channel},
};

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Who calls has a deadline of its own; this one is for callers that went away.
const CALL_WITHIN: Duration = Duration::from_secs(60);

/// Hands the calls on to this socket.
pub(super) struct Forward(pub(super) PathBuf);

impl Forward {
    async fn agent(&self) -> Result<AgentClient<Channel>, Status> {
        let channel = transport::connect(&self.0, CONNECT_WITHIN).await;
        channel
            .map(AgentClient::new)
            .map_err(|error| status_of(&error.context("the node agent")))
    }
}

fn handed_on<T>(request: Request<T>) -> Request<T> {
    let mut request = Request::new(request.into_inner());
    request.set_timeout(CALL_WITHIN);
    request
}

#[tonic::async_trait]
impl agent_server::Agent for Forward {
    async fn check_container(
        &self,
        request: Request<CheckContainerRequest>,
    ) -> Result<Response<CheckContainerResponse>, Status> {
        let mut agent = self.agent().await?;
        agent.check_container(handed_on(request)).await
    }

    async fn give_container(
        &self,
        request: Request<GiveContainerRequest>,
    ) -> Result<Response<GiveContainerResponse>, Status> {
        let mut agent = self.agent().await?;
        agent.give_container(handed_on(request)).await
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        let mut agent = self.agent().await?;
        agent.release_container(handed_on(request)).await
    }

    async fn get_agent_status(
        &self,
        request: Request<GetAgentStatusRequest>,
    ) -> Result<Response<AgentStatus>, Status> {
        let mut agent = self.agent().await?;
        agent.get_agent_status(handed_on(request)).await
    }

    async fn set_draining(
        &self,
        request: Request<SetDrainingRequest>,
    ) -> Result<Response<DrainStatus>, Status> {
        let mut agent = self.agent().await?;
        agent.set_draining(handed_on(request)).await
    }
}
