// SPDX-License-Identifier: Apache-2.0
//! `store`: what a store file holds, looked at without a daemon.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Output};
use crate::error::{Error, Result};

/// The verbs of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Check every record, what records say of each other, and the indexes.
    ///
    /// The file stays as it is, and no daemon may have it open. Exit status: 0
    /// nothing is wrong; 9 something is, or it cannot be read.
    ///
    /// Example: actor-volumes store check /var/lib/actor-volumes/control.redb
    Check(Check),
    /// Print every record as a line of JSON.
    ///
    /// The file stays as it is, and no daemon may have it open.
    ///
    /// Example: actor-volumes store export /var/lib/actor-volumes/control.redb > records.jsonl
    Export(Export),
}

/// Options of `store check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The store file: `control.redb` in the state directory, or a copy of it.
    pub file: PathBuf,
    /// First make the indexes anew from the records; nothing else is changed.
    #[arg(long)]
    pub repair_indexes: bool,
    #[command(flatten)]
    output: Output,
}

/// Options of `store export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The store file: `control.redb` in the state directory, or a copy of it.
    pub file: PathBuf,
    /// Print volume and publish contexts, parameters, mount options and the names
    /// of secrets, too. They may be sensitive.
    #[arg(long)]
    pub with_contexts: bool,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The file.
    pub file: String,
    /// Records by kind.
    pub records: BTreeMap<String, u64>,
    /// Index entries.
    pub index_entries: u64,
    /// Whether the indexes were made anew before.
    pub indexes_made_anew: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The record or index entry.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Check {
    /// Prints the report; an error if something is wrong.
    pub fn print(&self, report: &CheckReport) -> Result<()> {
        self.output.print(report, || text(report))?;
        match report.findings.len() {
            0 => Ok(()),
            count => Err(Error::internal(format!(
                "store {} has {count} findings: see above what to do about each",
                report.file
            ))),
        }
    }
}

fn text(report: &CheckReport) -> String {
    let mut rows: Vec<_> = report
        .records
        .iter()
        .map(|(kind, count)| vec![kind.clone(), count.to_string()])
        .collect();
    rows.push(vec![
        "index entries".into(),
        report.index_entries.to_string(),
    ]);
    let mut text = output::table(&["KIND", "COUNT"], &rows);
    if report.indexes_made_anew {
        text.push_str("The indexes were made anew.\n");
    }
    if report.findings.is_empty() {
        text.push_str("Nothing is wrong.\n");
    }
    for finding in &report.findings {
        text.push_str(&format!(
            "{}: {}\n  {}\n",
            finding.key, finding.problem, finding.remedy
        ));
    }
    text
}
