// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes node`: the node agent, with its control plane elsewhere or in another
//! process of this host.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    helped,
    own::{Role, own},
    parts::{Base, Door},
};
use crate::{
    config::{Config, NodeControl},
    error::{Error, Result},
    host::{child, privileges::Process, process},
    link::{self, LinkSettings, Word},
    transport::Endpoint,
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
    /// `serve` starts it beside this process.
    pub(super) fn of(no_helper: bool) -> Self {
        if no_helper || child::is_tied() {
            Self::Apart
        } else {
            Self::Child
        }
    }

    /// What the agent is then.
    pub(super) fn process(self) -> Process {
        match self {
            Self::Child => Process::NodeAndHelper,
            Self::Apart => Process::Node,
        }
    }
}

/// How long a control plane on this host is waited for before the runtime may ask: what
/// it has not granted yet is refused, and has to be tried again.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(2);

/// Runs until the shutdown.
pub(super) async fn node(
    mut config: Config,
    endpoint: Option<String>,
    shutdown: CancellationToken,
    door: Door,
    helper: Helper,
) -> Result<()> {
    let endpoint = control_of(&mut config, endpoint)?;
    // So that there is one daemon at a time.
    if !own(Role::Node, &config, &shutdown, |what| door.waits_for(what)).await? {
        return Ok(());
    }
    let mut sockets = vec![config.agent_socket()];
    // Where no control plane has it.
    if let Endpoint::Tls(_) = endpoint {
        sockets.push(config.socket());
    }
    let base = Base::new(config, shutdown)?;
    let mut doors = Vec::new();
    for socket in &sockets {
        doors.push(base.bind(socket).await?);
    }
    let state_dir = &base.config.node.state_dir;
    let word = Arc::new(Word::new(endpoint.to_string(), state_dir)?);
    let helper = match helper {
        Helper::Child => Some(helped::start(&base.config, base.shutdown.clone())),
        Helper::Apart => None,
    };
    let agent = base.agent(Arc::clone(&word) as Arc<_>)?;
    let is_here = matches!(endpoint, Endpoint::Unix(_));
    let settings = LinkSettings {
        node: base.name.clone(),
        instance: link::instance(&base.config.node.state_dir)?,
        boot_id: process::boot_id(),
        endpoint,
        told_keys: base.config.told_key_dir(),
    };
    base.metrics(base.config.metrics.listen).await?;
    let serving: Vec<_> = doors
        .into_iter()
        .map(|door| base.serve_agent(door, &agent))
        .collect();
    let (drivers, shutdown) = (Arc::clone(&base.drivers), base.shutdown.clone());
    let line = link::run(
        settings,
        Arc::clone(&agent),
        drivers,
        Arc::clone(&word),
        shutdown,
    );
    let line = tokio::spawn(line);
    tracing::info!(node = %base.name, "the node agent is running");
    if is_here {
        let spoken = tokio::time::timeout(FIRST_WORD_WITHIN, word.spoken());
        let _ = base.shutdown.run_until_cancelled(spoken).await;
    }
    let nri = base.nri(door, agent);
    let _ = line.await;
    let _ = nri.await;
    for serving in serving {
        let _ = serving.await;
    }
    if let Some(helper) = helper {
        let _ = helper.await;
    }
    // The next start replaces dead sockets as well.
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// Where the control plane is: by the option, else by the configuration.
fn control_of(config: &mut Config, option: Option<String>) -> Result<Endpoint> {
    if let Some(endpoint) = option {
        let tls = config.node.control.take().and_then(|c| c.tls);
        // TLS files are for another endpoint than a socket.
        let tls = tls.filter(|_| !endpoint.starts_with("unix://"));
        config.node.control = Some(NodeControl { endpoint, tls });
    }
    let control = config.node.control.as_ref().ok_or_else(|| {
        Error::invalid(
            "`actor-volumes node` needs a [node.control] table with endpoint, and [node.control.tls] with ca, cert and key",
        )
    })?;
    control.endpoint()
}
