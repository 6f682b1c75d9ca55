// SPDX-License-Identifier: Apache-2.0
//! The client of the node agent on this host.

use std::{path::Path, time::Duration};

use tonic::Request;

use super::status::error_of;
use crate::{
    error::{Error, Result},
    proto::api::{self, agent_client::AgentClient as Inner},
    transport,
};

/// The server may go on for so long after nobody waits any more: ours is the
/// clearer message.
const GRACE: Duration = Duration::from_secs(1);

/// Asks the node agent at this socket whether the container may be made. All of
/// it is over within this time.
pub async fn check_container(
    socket: &Path,
    within: Duration,
    asked: api::CheckContainerRequest,
) -> Result<()> {
    let asking = async {
        let channel = transport::connect(socket, within).await?;
        let mut request = Request::new(asked);
        request.set_timeout(within + GRACE);
        let answer = Inner::new(channel).check_container(request).await;
        answer.map(drop).map_err(|status| error_of(&status))
    };
    in_time(socket, within, asking).await
}

/// Asks the node agent at this socket for what the container must have. All of it is
/// over within this time.
pub async fn give_container(
    socket: &Path,
    within: Duration,
    asked: api::GiveContainerRequest,
) -> Result<api::GiveContainerResponse> {
    let asking = async {
        let channel = transport::connect(socket, within).await?;
        let mut request = Request::new(asked);
        request.set_timeout(within + GRACE);
        let answer = Inner::new(channel).give_container(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| error_of(&status))
    };
    in_time(socket, within, asking).await
}

/// Tells the node agent at this socket that the container is over, or was never made.
pub async fn release_container(
    socket: &Path,
    within: Duration,
    asked: api::ReleaseContainerRequest,
) -> Result<api::ReleaseContainerResponse> {
    let asking = async {
        let channel = transport::connect(socket, within).await?;
        let mut request = Request::new(asked);
        request.set_timeout(within + GRACE);
        let answer = Inner::new(channel).release_container(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| error_of(&status))
    };
    in_time(socket, within, asking).await
}

/// How things stand with the node agent at this socket.
pub async fn agent_status(socket: &Path, within: Duration) -> Result<api::AgentStatus> {
    let asking = async {
        let channel = transport::connect(socket, within).await?;
        let mut request = Request::new(api::GetAgentStatusRequest {});
        request.set_timeout(within + GRACE);
        let answer = Inner::new(channel).get_agent_status(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| error_of(&status))
    };
    in_time(socket, within, asking).await
}

/// Begins to empty the node of the agent at this socket, or ends that. Gives what is
/// left on it.
pub async fn set_draining(
    socket: &Path,
    within: Duration,
    draining: bool,
) -> Result<api::DrainStatus> {
    let asking = async {
        let channel = transport::connect(socket, within).await?;
        let mut request = Request::new(api::SetDrainingRequest { draining });
        request.set_timeout(within + GRACE);
        let answer = Inner::new(channel).set_draining(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| error_of(&status))
    };
    in_time(socket, within, asking).await
}

/// A server that was stopped still accepts connections: the wait has an end.
async fn in_time<T>(
    socket: &Path,
    within: Duration,
    asking: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(within, asking)
        .await
        .unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "the node agent at {} did not answer within {within:?}",
                socket.display()
            )))
        })
}
