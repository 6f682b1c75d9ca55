// SPDX-License-Identifier: Apache-2.0
//! `node drain` and `node uncordon`: of the node of this host.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    cli::{
        output::{self, Output},
        timeout::Timeout,
    },
    error::{Error, Result},
    proto::api::DrainStatus,
    rpc::set_draining,
};

/// How long the node agent may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// How often it is asked what is left.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Options of `node drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Wait until nothing is left on the node
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    output: Output,
}

/// Options of `node uncordon`.
#[derive(Debug, Args)]
pub struct Uncordon {
    #[command(flatten)]
    output: Output,
}

impl Drain {
    pub(super) async fn run(self, socket: &Path) -> Result<()> {
        let end = Instant::now() + self.timeout.timeout;
        loop {
            let status = set_draining(socket, WITHIN, true).await?;
            let is_over = Instant::now() >= end;
            if self.wait && !status.blockers.is_empty() && !is_over {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            self.output.print(&status, || text(&status))?;
            if self.wait && !status.blockers.is_empty() {
                return Err(Error::deadline(format!(
                    "node {} is not empty yet, {} volumes are held: stop their pods or suspend their actors; it goes on taking no new ones",
                    status.node,
                    status.blockers.len()
                )));
            }
            return Ok(());
        }
    }
}

impl Uncordon {
    pub(super) async fn run(self, socket: &Path) -> Result<()> {
        let status = set_draining(socket, WITHIN, false).await?;
        self.output.print(&status, || text(&status))
    }
}

fn text(status: &DrainStatus) -> String {
    let takes = if status.draining {
        "takes no new pods with volumes"
    } else {
        "takes pods with volumes"
    };
    let mut text = format!("node {} {takes}\n", status.node);
    if status.draining && status.blockers.is_empty() {
        text.push_str("nothing is held on it\n");
    } else if status.draining {
        let row = |b: &crate::proto::api::Blocker| {
            vec![b.driver.clone(), b.volume_id.clone(), b.held_by.clone()]
        };
        let rows: Vec<_> = status.blockers.iter().map(row).collect();
        text.push_str(&output::table(&["DRIVER", "VOLUME", "HELD BY"], &rows));
    }
    text
}
