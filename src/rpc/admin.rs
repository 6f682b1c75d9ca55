// SPDX-License-Identifier: Apache-2.0
//! The client of the verbs on nodes.

use std::{path::Path, time::Duration};

use tonic::Request;

use super::status::error_of;
use crate::{
    error::Result,
    proto::api::{self, node_admin_client::NodeAdminClient},
    transport::{self, Channel},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A fence goes through the records of every actor.
const CALL_WITHIN: Duration = Duration::from_secs(120);

/// A client of the verbs on nodes.
#[derive(Clone)]
pub struct AdminClient {
    inner: NodeAdminClient<Channel>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ident => $response:ident),* $(,)?) => {
        impl AdminClient {
            $($(#[$doc])* pub async fn $name(
                &mut self,
                request: api::$request,
            ) -> Result<api::$response> {
                let mut request = Request::new(request);
                request.set_timeout(CALL_WITHIN);
                let answer = self.inner.$name(request).await;
                answer.map(|r| r.into_inner()).map_err(|status| error_of(&status))
            })*
        }
    };
}

calls! {
    /// `node ls`
    list_nodes: ListNodesRequest => ListNodesResponse,
    /// `node show`
    get_node: GetNodeRequest => Node,
    /// `node fence`
    fence_node: FenceNodeRequest => Node,
    /// `node reset`
    reset_node: ResetNodeRequest => Node,
}

impl AdminClient {
    /// Connects to the control plane's socket.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let channel = transport::connect(socket, CONNECT_WITHIN).await?;
        Ok(Self {
            inner: NodeAdminClient::new(channel),
        })
    }
}
