// SPDX-License-Identifier: Apache-2.0
//! `store check` and `store export`: the file, without a daemon.

use std::{
    io::{BufWriter, ErrorKind, Write},
    path::Path,
};

use crate::{
    cli::store::{Check, CheckReport, Export, Finding, StoreCommand},
    control::{
        check, export,
        store::{RedbStore, Store},
    },
    error::{Error, Result},
};

/// Does what the command says.
pub(super) fn run(command: &StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Check(options) => look(options),
        StoreCommand::Export(options) => print(options),
    }
}

fn look(options: &Check) -> Result<()> {
    let file = options.file.as_path();
    if options.repair_indexes {
        check_there(file)?;
        RedbStore::open(file)?.rebuild_index()?;
    }
    let store = RedbStore::open_read_only(file)?;
    let checked = check::check(&*store.snapshot()?)?;
    let findings = checked.findings.into_iter().map(|f| Finding {
        key: f.key,
        problem: f.problem,
        remedy: f.remedy.to_owned(),
    });
    options.print(&CheckReport {
        file: file.display().to_string(),
        records: checked.records,
        index_entries: checked.entries,
        indexes_made_anew: options.repair_indexes,
        findings: findings.collect(),
    })
}

/// Nothing is made where nothing was.
fn check_there(file: &Path) -> Result<()> {
    match file.metadata() {
        Ok(found) if found.len() > 0 => Ok(()),
        Ok(_) => Err(Error::precondition(format!(
            "{} is empty: no store",
            file.display()
        ))),
        Err(e) => Err(
            Error::not_found(format!("cannot open the store {}", file.display())).with_source(e),
        ),
    }
}

fn print(options: &Export) -> Result<()> {
    let store = RedbStore::open_read_only(&options.file)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let failed = |e| Error::internal("cannot write to stdout").with_source(e);
    let told = |done: std::io::Result<()>| match done {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(failed(e)),
        Ok(()) => Ok(true),
    };
    export::export(&*store.snapshot()?, options.with_contexts, |line| {
        told(writeln!(out, "{line}"))
    })?;
    told(out.flush()).map(drop)
}
