// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes control`: the control plane.

use tokio_util::sync::CancellationToken;

use super::{
    forward::Forward,
    own::{Role, own},
    parts::Base,
};
use crate::{
    config::Config,
    error::{Error, Result},
};

/// Runs until the shutdown. `with_node`: the node agent of this host is its own.
pub(super) async fn control(
    config: Config,
    with_node: bool,
    shutdown: CancellationToken,
) -> Result<()> {
    let with_node = with_node || config.is_with_control()?;
    if !with_node && config.control.files().is_none() {
        return Err(Error::invalid(
            "a control plane without a node needs control.listen and [control.tls], or no node ever reaches it",
        ));
    }
    if !own(Role::Control, &config, &shutdown, drop).await? {
        return Ok(());
    }
    let base = Base::new(config, shutdown)?;
    let door = base.bind(&base.config.socket()).await?;
    let (control, nodes) = base.control(with_node).await?;
    let metrics = match with_node {
        true => base.config.control_metrics()?,
        false => base.config.metrics.listen,
    };
    base.metrics(metrics).await?;
    base.metrics.without_nri();
    base.listen_here(&control, &nodes).await?;
    base.listen_for_nodes(&control, &nodes).await?;
    let agent = with_node.then(|| Forward(base.config.agent_socket()));
    let served = base.serve_api(door, &control, &nodes, agent).await;
    // The next start replaces dead sockets as well.
    for socket in [base.config.socket(), base.config.nodes_socket()] {
        let _ = std::fs::remove_file(socket);
    }
    served
}
