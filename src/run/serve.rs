// SPDX-License-Identifier: Apache-2.0
//! `actor-volumes serve`: control plane, node agent and what else the configuration says,
//! each a process of its own.

use std::{ffi::OsString, fs::File, os::fd::OwnedFd, path::Path};

use tokio_util::sync::CancellationToken;

use super::{
    own::{Role, own},
    supervise::{Part, Supervisor},
};
use crate::{config::Config, error::Result, host::child};

/// Runs until the shutdown.
pub(super) async fn serve(config: &Config, path: &Path, shutdown: CancellationToken) -> Result<()> {
    // So that there is one at a time.
    if !own(Role::Serve, config, &shutdown, drop).await? {
        return Ok(());
    }
    let mut supervisor = Supervisor::new(shutdown)?;
    for part in parts(config, path) {
        supervisor.start(part);
    }
    supervisor.run().await
}

/// The parts of a host, in the order in which they end: what needs others first.
fn parts(config: &Config, path: &Path) -> Vec<Part> {
    let mut parts = vec![control(path), node(config, path), helper(path)];
    parts.extend(local_driver(config));
    parts
}

/// The same where the runtime has started the node agent's part already.
pub(super) fn parts_but_node(config: &Config, path: &Path) -> Vec<Part> {
    let mut parts = Vec::new();
    // Otherwise it is elsewhere.
    if config.node.control.is_none() {
        parts.push(control(path));
    }
    parts.push(helper(path));
    parts.extend(local_driver(config));
    parts
}

fn control(path: &Path) -> Part {
    Part::new(
        "control",
        configured("control", path).chain(["--with-node".into()]),
    )
}

fn node(config: &Config, path: &Path) -> Part {
    let line = format!("unix://{}", config.nodes_socket().display());
    let words = configured("node", path);
    Part::new("node", words.chain(["--control".into(), line.into()]))
}

fn helper(path: &Path) -> Part {
    Part::new("helper", configured("helper", path))
}

/// The node agent's part with the connection on which the runtime speaks.
pub(super) fn launched_node(path: &Path, connection: OwnedFd) -> Part {
    let number = child::number(&connection).to_string();
    let words = configured("node", path);
    Part::new("node", words.chain(["--launched".into(), number.into()])).with(connection)
}

fn local_driver(config: &Config) -> Option<Part> {
    let (local, socket) = (config.local_driver.as_ref()?, config.local_driver_socket()?);
    let words: [OsString; 7] = [
        "local-driver".into(),
        "--socket".into(),
        socket.into(),
        "--root".into(),
        local.root.clone().into(),
        "--name".into(),
        local.name.as_str().into(),
    ];
    Some(Part::new("local-driver", words))
}

fn configured(subcommand: &str, path: &Path) -> impl Iterator<Item = OsString> {
    [subcommand.into(), "--config".into(), path.into()].into_iter()
}

/// What all of them print goes to this file.
pub(super) fn printing_to(parts: Vec<Part>, file: &File) -> Vec<Part> {
    let printing = |part: Part| part.printing_to(file.try_clone().ok());
    parts.into_iter().map(printing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parts: &[Part]) -> Vec<&'static str> {
        parts.iter().map(Part::name).collect()
    }

    #[test]
    fn the_parts_are_those_that_the_configuration_has() {
        let path = Path::new("/c");
        let of = |text: &str| {
            let config = Config::parse(text).unwrap();
            (
                names(&parts(&config, path)),
                names(&parts_but_node(&config, path)),
            )
        };
        assert_eq!(
            of(""),
            (vec!["control", "node", "helper"], vec!["control", "helper"])
        );
        let (all, but_node) = of("[local_driver]\nroot = \"/r\"\n");
        assert_eq!(all, ["control", "node", "helper", "local-driver"]);
        assert_eq!(but_node, ["control", "helper", "local-driver"]);
        let elsewhere = of("[node.control]\nendpoint = \"unix:///x.sock\"\n");
        assert_eq!(elsewhere.1, ["helper"]);
    }
}
