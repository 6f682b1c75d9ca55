// SPDX-License-Identifier: Apache-2.0
//! `node show`

use clap::Args;

use super::Named;
use crate::{
    cli::output::{self, Output},
    error::Result,
    proto::api,
    rpc::AdminClient,
};

/// Options of `node show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    output: Output,
}

impl Show {
    pub(super) async fn run(self, mut client: AdminClient) -> Result<()> {
        let name = self.named.node.to_string();
        let node = client.get_node(api::GetNodeRequest { name }).await?;
        self.output.print(&node, || text(&node))
    }
}

pub(super) fn text(node: &api::Node) -> String {
    let fenced = if node.fenced_since.is_empty() {
        String::new()
    } else {
        format!("since {}, by {}", node.fenced_since, node.fenced_by)
    };
    let mut text = output::fields(&[
        ("Name", node.name.clone()),
        ("State", node.state.clone()),
        ("Since", node.since.clone()),
        ("First seen", node.first_seen.clone()),
        ("Fenced", fenced),
        ("Instance", node.instance.clone()),
        ("Boot", node.boot_id.clone()),
        ("Message", node.message.clone()),
    ]);
    if !node.drivers.is_empty() {
        let rows: Vec<_> = node.drivers.iter().map(driver).collect();
        text.push('\n');
        text.push_str(&output::table(
            &["DRIVER", "NODE ID", "PLACE", "MOST VOLUMES"],
            &rows,
        ));
    }
    if !node.possible_double_writers.is_empty() {
        let doubles = node.possible_double_writers.iter();
        let rows: Vec<_> = doubles
            .map(|d| vec![d.driver.clone(), d.volume_id.clone(), d.held_by.clone()])
            .collect();
        text.push_str("\nPossible double writers: stop what holds these volumes here\n");
        text.push_str(&output::table(&["DRIVER", "VOLUME ID", "HELD BY"], &rows));
    }
    text
}

fn driver(driver: &api::NodeDriver) -> Vec<String> {
    let mut place: Vec<_> = driver
        .topology
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    place.sort();
    vec![
        driver.name.clone(),
        driver.node_id.clone(),
        place.join(","),
        match driver.max_volumes {
            0 => "no limit".to_owned(),
            most => most.to_string(),
        },
    ]
}
