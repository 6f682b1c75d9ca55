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

use crate::{
    config::Log,
    error::{Error, Result},
};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging to standard error. `ACTOR_VOLUMES_LOG` overrides the filter.
pub fn init(log: &Log) -> Result<()> {
    let filter = std::env::var("ACTOR_VOLUMES_LOG").unwrap_or_else(|_| log.filter.clone());
    let filter = EnvFilter::try_new(&filter).map_err(|e| {
        Error::invalid(format!("log filter {filter:?} is not understood")).with_source(e)
    })?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if log.json {
        lines.json().try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
    set.map_err(|e| Error::internal(format!("cannot start logging: {e}")))
}
