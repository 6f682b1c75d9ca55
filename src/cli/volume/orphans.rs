// SPDX-License-Identifier: Apache-2.0
//! `volume orphans`

use std::time::Duration;

use clap::Args;

use crate::{
    cli::{
        Context,
        output::{self, Output},
    },
    error::{Error, Result},
    model::DriverName,
    proto::api,
};

/// How long the drivers may take to list what they have.
const LISTING: Duration = Duration::from_secs(600);

/// Options of `volume orphans`.
#[derive(Debug, Args)]
pub struct Orphans {
    /// Look at this driver alone.
    #[arg(long, value_name = "DRIVER")]
    driver: Option<DriverName>,
    /// Delete the orphans with these ids.
    #[arg(long, value_name = "VOLUME_ID", num_args = 1.., conflicts_with = "delete_all")]
    delete: Vec<String>,
    /// Delete all orphans that are attached nowhere.
    #[arg(long)]
    delete_all: bool,
    #[command(flatten)]
    output: Output,
}

impl Orphans {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client_that_waits(LISTING).await?;
        let driver = self.driver.map(String::from).unwrap_or_default();
        let asked_to_delete = self.delete_all || !self.delete.is_empty();
        let (orphans, notes) = if asked_to_delete {
            let request = api::DeleteOrphansRequest {
                driver,
                volume_ids: self.delete,
                all: self.delete_all,
            };
            let answer = client.delete_orphans(request).await?;
            (answer.orphans, answer.notes)
        } else {
            let request = api::ListOrphansRequest { driver };
            let answer = client.list_orphans(request).await?;
            (answer.orphans, answer.notes)
        };
        for note in notes {
            eprintln!("note: {note}");
        }
        self.output.print(&orphans, || {
            let rows: Vec<_> = orphans.iter().map(row).collect();
            let header = ["DRIVER", "VOLUME ID", "CAPACITY", "NODES", "WHY", "DELETED"];
            output::table(&header, &rows)
        })?;
        let left = orphans.iter().filter(|o| !o.message.is_empty()).count();
        if left > 0 {
            return Err(Error::precondition(format!(
                "{left} of the orphans were not deleted: the table says why"
            )));
        }
        Ok(())
    }
}

fn row(orphan: &api::Orphan) -> Vec<String> {
    let nodes = if orphan.nodes_known {
        orphan.nodes.join(",")
    } else {
        "not told".to_owned()
    };
    let deleted = if orphan.deleted {
        "yes".to_owned()
    } else {
        orphan.message.clone()
    };
    vec![
        orphan.driver.clone(),
        orphan.volume_id.clone(),
        output::bytes(orphan.capacity_bytes),
        nodes,
        orphan.why.clone(),
        deleted,
    ]
}
