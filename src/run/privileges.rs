// SPDX-License-Identifier: Apache-2.0
//! The first thing that a daemon does: it gives up what it does not need, and begins
//! its log with what it keeps.

use crate::{
    config::{Config, Log},
    error::{Error, Result},
    host::privileges::{self, Limited, Process},
    telemetry,
};

/// For a daemon with a configuration. Before any thread, and so before the async
/// runtime.
pub(super) fn begin(process: Process, config: &Config) -> Result<()> {
    begin_with(process, &config.log, has_low_port(config))
}

/// For one without.
pub(super) fn begin_with(process: Process, log: &Log, low_port: bool) -> Result<()> {
    let limited = limit(process, low_port)?;
    telemetry::init(log)?;
    tell(&limited);
    Ok(())
}

/// Before anything is known of a configuration, or of a log.
pub(super) fn limit(process: Process, low_port: bool) -> Result<Limited> {
    privileges::limit(process, low_port).map_err(|e| {
        Error::internal(format!(
            "cannot give up the privileges that {process} does not need"
        ))
        .with_source(e)
    })
}

/// Says what is kept, and what is not there.
pub(super) fn tell(limited: &Limited) {
    tracing::info!("privileges: {limited}");
    if let Some(missing) = limited.missing() {
        tracing::warn!(
            "privileges: {missing} is not there: what it is for, by docs/security.md, does not work"
        );
    }
}

/// Whether it listens where only the privileged may.
fn has_low_port(config: &Config) -> bool {
    const FIRST_FREE: u16 = 1024;
    let listens = config.metrics.listen.into_iter();
    let mut ports = listens
        .chain(config.control.listen.iter().copied())
        .map(|address| address.port());
    // 0 is any port that is free.
    ports.any(|port| port != 0 && port < FIRST_FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_below_1024_is_seen_wherever_it_is_listened_on() {
        for (text, low) in [
            ("", false),
            ("[metrics]\nlisten = \"127.0.0.1:9810\"\n", false),
            ("[metrics]\nlisten = \"127.0.0.1:0\"\n", false),
            ("[metrics]\nlisten = \"127.0.0.1:80\"\n", true),
            ("[metrics]\nlisten = \"[::1]:1023\"\n", true),
        ] {
            let config = Config::parse(text).unwrap();
            assert_eq!(has_low_port(&config), low, "{text}");
        }
    }
}
