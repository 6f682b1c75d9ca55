// SPDX-License-Identifier: Apache-2.0
//! Logs and metrics.

mod http;
mod metrics;
mod population;
mod usage;

pub use http::serve;
pub use metrics::Metrics;
pub use population::Population;
pub use usage::{Fullness, OfVolume, Usage};

use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use crate::{
    config::Log,
    error::{Error, Result},
};
use tracing_subscriber::{EnvFilter, fmt, fmt::writer::BoxMakeWriter};

/// Starts logging, to standard error or the configured file. `ACTOR_VOLUMES_LOG`
/// overrides the filter.
pub fn init(log: &Log) -> Result<()> {
    let filter = std::env::var("ACTOR_VOLUMES_LOG").unwrap_or_else(|_| log.filter.clone());
    let filter = EnvFilter::try_new(&filter).map_err(|e| {
        Error::invalid(format!("log filter {filter:?} is not understood")).with_source(e)
    })?;
    let writer = match &log.file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => BoxMakeWriter::new(Arc::new(open(path)?)),
    };
    let lines = fmt().with_env_filter(filter).with_writer(writer);
    let set = if log.json {
        lines.json().try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
    set.map_err(|e| Error::internal(format!("cannot start logging: {e}")))
}

fn open(path: &Path) -> Result<File> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir)
        .and_then(|()| {
            let mut options = File::options();
            options.create(true).append(true).mode(0o600).open(path)
        })
        .map_err(|e| {
            Error::invalid(format!("cannot open the log file {}", path.display())).with_source(e)
        })
}
