// SPDX-License-Identifier: Apache-2.0
//! `node`: the daemon of a node without a verb, else verbs of nodes.

mod drain;
mod fence;
mod ls;
mod reset;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::{config, error::Result, model::NodeName, rpc::AdminClient};

/// `node`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct NodeCommand {
    /// What to do with nodes; none: run the node agent of this host.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The control plane, instead of node.control.endpoint: https://host:port,
    /// or unix://<socket> on its own host
    #[arg(long, value_name = "URL")]
    pub control: Option<String>,
    /// The runtime has started us, and this descriptor is its connection.
    #[arg(long, hide = true, value_name = "FD")]
    pub launched: Option<i32>,
}

/// Verbs of nodes.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the nodes that have been connected.
    Ls(ls::Ls),
    /// Show a node: since when it is there or away, its drivers, what it still
    /// holds of volumes that are others' by now.
    Show(show::Show),
    /// Say that a node is off, so that its volumes can be used elsewhere.
    ///
    /// Make sure first that it is powered off, or cut from its storage: whoever
    /// still writes there destroys the volume for the next. It is taken back by
    /// itself when it connects again and what it held is over.
    ///
    /// Example: actor-volumes node fence node-a --confirm-off
    Fence(fence::Fence),
    /// Empty this host: no volume is published for new pods; to be run on the node.
    ///
    /// What runs goes on: stop the pods, or suspend the actors. It is so until
    /// `node uncordon`, also after a restart.
    ///
    /// Example: actor-volumes node drain --wait --timeout 10m
    Drain(drain::Drain),
    /// Let this host take pods with volumes again.
    Uncordon(drain::Uncordon),
    /// Accept a node that lost its state directory.
    ///
    /// Make sure first that nothing of what it held runs there: a reboot does that.
    ///
    /// Example: actor-volumes node reset node-a --confirm-nothing-runs
    Reset(reset::Reset),
}

/// The node that a verb is about.
#[derive(Debug, Args)]
struct Named {
    /// The node's name.
    node: NodeName,
}

impl Verb {
    /// Runs it against the control plane, or the node agent, at this socket.
    pub async fn run(self, socket: &Path) -> Result<()> {
        let client = || AdminClient::connect(socket);
        match self {
            Self::Ls(verb) => verb.run(client().await?).await,
            Self::Show(verb) => verb.run(client().await?).await,
            Self::Fence(verb) => verb.run(client().await?).await,
            Self::Reset(verb) => verb.run(client().await?).await,
            Self::Drain(verb) => verb.run(socket).await,
            Self::Uncordon(verb) => verb.run(socket).await,
        }
    }
}
