// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve`: control plane and node agent of one host; and
//! `actor-volumes control`: the control plane alone.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::{
    own::own,
    parts::{Base, Door},
    ports::{CurrentWord, LocalNode},
};
use crate::{
    config::Config,
    control::NodePort,
    error::{Error, Result},
    keys::KeyDir,
    transport,
};

/// Runs until the shutdown.
pub(super) async fn serve(config: Config, shutdown: CancellationToken, door: Door) -> Result<()> {
    // So that there is one daemon at a time.
    if !own(&config, &shutdown, |what| door.waits_for(what)).await? {
        return Ok(());
    }
    let incoming = transport::bind(&config.socket()).await?;
    let base = Base::new(config, shutdown)?;
    let local = Arc::new(LocalNode {
        name: base.name.clone(),
        agent: OnceLock::new(),
    });
    let port = Arc::clone(&local) as Arc<dyn NodePort>;
    let (control, nodes) = base.control(Some(port)).await?;
    let agent = base.agent(
        Arc::new(CurrentWord(Arc::clone(&control))),
        KeyDir::new(base.config.key_dir()).public_dir(),
    )?;
    let _ = local.agent.set(Arc::clone(&agent));
    base.metrics().await?;
    let nri = base.nri(door, Arc::clone(&agent));
    base.listen_for_nodes(&control, &nodes).await?;
    let served = base
        .serve_api(incoming, &control, &nodes, Some(&agent))
        .await;
    let _ = nri.await;
    // The next start replaces a dead socket as well.
    let _ = std::fs::remove_file(base.config.socket());
    served
}

/// The control plane without a node. Runs until the shutdown.
pub(super) async fn control(config: Config, shutdown: CancellationToken) -> Result<()> {
    if config.control.files().is_none() {
        return Err(Error::invalid(
            "a control plane without a node needs control.listen and [control.tls], or no node ever reaches it",
        ));
    }
    if !own(&config, &shutdown, drop).await? {
        return Ok(());
    }
    let incoming = transport::bind(&config.socket()).await?;
    let base = Base::new(config, shutdown)?;
    let (control, nodes) = base.control(None).await?;
    base.metrics().await?;
    base.metrics.without_nri();
    base.listen_for_nodes(&control, &nodes).await?;
    let served = base.serve_api(incoming, &control, &nodes, None).await;
    let _ = std::fs::remove_file(base.config.socket());
    served
}
