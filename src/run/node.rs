// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes node`: the node agent alone, with its control plane elsewhere.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    own::own,
    parts::{Base, Door},
};
use crate::{
    config::Config,
    error::{Error, Result},
    host::process,
    link::{self, LinkSettings, Word},
    transport,
};

/// Runs until the shutdown.
pub(super) async fn node(
    mut config: Config,
    endpoint: Option<String>,
    shutdown: CancellationToken,
    door: Door,
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
    let word = Arc::new(Word::new(
        format!("tcp://{}:{}", endpoint.host, endpoint.port),
        &base.config.node.state_dir,
    )?);
    let agent = base.agent(Arc::clone(&word) as Arc<_>, base.config.told_key_dir())?;
    let settings = LinkSettings {
        node: base.name.clone(),
        instance: link::instance(&base.config.node.state_dir)?,
        boot_id: process::boot_id(),
        endpoint,
        told_keys: base.config.told_key_dir(),
    };
    base.metrics().await?;
    let nri = base.nri(door, Arc::clone(&agent));
    let serving = base.serve_agent(incoming, &agent);
    let drivers = Arc::clone(&base.drivers);
    tracing::info!(node = %base.name, "the node agent is running");
    link::run(settings, agent, drivers, word, base.shutdown.clone()).await;
    let _ = nri.await;
    let _ = serving.await;
    let _ = std::fs::remove_file(base.config.socket());
    Ok(())
}
