// SPDX-License-Identifier: Apache-2.0
//! Logs and metrics.

mod doors;
mod http;
mod metrics;
mod population;
mod usage;

pub use doors::Doors;
pub use http::serve;
pub use metrics::Metrics;
pub use population::Population;
pub use usage::{Fullness, OfVolume, Usage};

use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use crate::{
    config::Log,
    error::{Error, Result},
};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt,
    fmt::writer::BoxMakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

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
    let lines = fmt::layer().with_writer(writer);
    let lines = if log.json {
        lines.json().boxed()
    } else {
        lines.with_ansi(false).boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(filter_fn(is_safe))))
        .try_init()
        .map_err(|e| Error::internal(format!("cannot start logging: {e}")))
}

/// Whether a line may be written at all, whatever the filter says. What libraries
/// print below `info` are headers and frames, and with them what is nobody's business:
/// of them it is not known what it may hold, and so none of it is written.
fn is_safe(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || is_of(line.target(), OURS)
}

/// What is written here starts with it.
const OURS: &str = "actor_volumes";

fn is_of(target: &str, name: &str) -> bool {
    let rest = target.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
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

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_shows_what_libraries_print_of_their_frames() {
        let written = Written::default();
        let writer = written.clone();
        let filter = EnvFilter::new("trace,h2=trace,hyper=debug");
        let lines = fmt::layer().with_writer(move || writer.clone());
        let lines = lines.with_filter(filter.and(filter_fn(is_safe)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::trace!(target: "h2::codec::framed_write", "canary");
            tracing::debug!(target: "hyper::proto", "canary");
            tracing::debug!(target: "actor_volumes_x", "canary");
            let span = tracing::debug_span!(target: "tonic", "call", body = "canary");
            span.in_scope(|| tracing::trace!("ours"));
            tracing::info!(target: "rustls", "theirs");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ours") && text.contains("theirs"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
