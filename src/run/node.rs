// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes node`: the node agent alone, with its control plane elsewhere.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    helped,
    own::own,
    parts::{Base, Door},
};
use crate::{
    config::Config,
    error::{Error, Result},
    host::{privileges::Process, process},
    link::{self, LinkSettings, Word},
    transport,
};

/// Where the helper is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Helper {
    /// A child of the agent, which then has its privileges too.
    Child,
    /// Beside it: others start it.
    Apart,
}

impl Helper {
    pub(super) fn of(no_helper: bool) -> Self {
        if no_helper { Self::Apart } else { Self::Child }
    }

    /// What the agent is then.
    pub(super) fn process(self) -> Process {
        match self {
            Self::Child => Process::NodeAndHelper,
            Self::Apart => Process::Node,
        }
    }
}

/// Runs until the shutdown.
pub(super) async fn node(
    mut config: Config,
    endpoint: Option<String>,
    shutdown: CancellationToken,
    door: Door,
    helper: Helper,
) -> Result<()> {
    let control = config.node.control.as_mut().ok_or_else(|| {
        Error::invalid(
            "`actor-volumes node` needs a [node.control] table with endpoint, and [node.control.tls] with ca, cert and key",
        )
    })?;
    if let Some(endpoint) = endpoint {
        control.endpoint = endpoint;
    }
    let endpoint = control.endpoint()?;
    // So that there is one daemon at a time.
    if !own(&config, &shutdown, |what| door.waits_for(what)).await? {
        return Ok(());
    }
    let incoming = transport::bind(&config.socket()).await?;
    let base = Base::new(config, shutdown)?;
    let word = Arc::new(Word::new(format!(
        "tcp://{}:{}",
        endpoint.host, endpoint.port
    )));
    let helper = match helper {
        Helper::Child => Some(helped::start(&base.config, base.shutdown.clone())),
        Helper::Apart => None,
    };
    let agent = base.agent(Arc::clone(&word) as Arc<_>)?;
    let settings = LinkSettings {
        node: base.name.clone(),
        instance: link::instance(&base.config.node.state_dir)?,
        boot_id: process::boot_id(),
        endpoint,
    };
    base.metrics().await?;
    let nri = base.nri(door, Arc::clone(&agent));
    let serving = base.serve_agent(incoming, &agent);
    let drivers = Arc::clone(&base.drivers);
    tracing::info!(node = %base.name, "the node agent is running");
    link::run(settings, agent, drivers, word, base.shutdown.clone()).await;
    let _ = nri.await;
    let _ = serving.await;
    if let Some(helper) = helper {
        let _ = helper.await;
    }
    let _ = std::fs::remove_file(base.config.socket());
    Ok(())
}
