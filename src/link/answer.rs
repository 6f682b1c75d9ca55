// SPDX-License-Identifier: Apache-2.0
//! What the control plane asks, answered by the node agent.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    model::Generation,
    node::Agent,
    proto::api::{self, request::Call},
    rpc::line,
};

/// The answer to a request.
pub(super) async fn answer(agent: &Arc<Agent>, request: api::Request) -> api::Answer {
    let id = request.id;
    match carry_out(agent, request).await {
        Ok(answer) => api::Answer { id, ..answer },
        Err(error) => line::refusal(id, &error),
    }
}

async fn carry_out(agent: &Arc<Agent>, request: api::Request) -> Result<api::Answer> {
    let call = request.call.ok_or_else(|| {
        Error::unimplemented("this node does not know what it is asked: update it")
    })?;
    let mut answer = api::Answer::default();
    if let Call::Told(_) = call {
        // What came before it on the line has been taken in.
        return Ok(answer);
    }
    let key = line::volume_key(&request.driver, &request.volume_id)?;
    match call {
        Call::Revoke(call) => agent.revoke(&key, Generation(call.generation)).await?,
        Call::Held(_) => answer.held_by = agent.held(&key).await.unwrap_or_default(),
        Call::Told(_) => {}
        Call::Forget(_) => agent.forget(&key).await?,
        Call::Quiet(call) => {
            let length = Duration::from_millis(call.length_ms);
            agent.quiet(&key, length).await?;
        }
        Call::Unquiet(_) => agent.unquiet(&key).await,
        Call::Expand(call) => answer.expanded = agent.expand(&key, call.bytes).await?,
        Call::Stats(_) => {
            if let Some(stats) = agent.stats(&key).await? {
                answer.stats = serde_json::to_string(&stats)
                    .map_err(|e| Error::internal("cannot write a volume's usage").with_source(e))?;
            }
        }
    }
    Ok(answer)
}
