// SPDX-License-Identifier: Apache-2.0
//! The processes of one host: where they find each other, and what the embedded
//! driver is told.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    AGENT_SOCKET, Config, Driver, HELPER_SOCKET, SOCKET,
    driver::{default_call_timeout_s, default_max_calls},
};
use crate::{
    error::{Error, Result},
    model::DriverName,
    transport::Endpoint,
};

/// The socket for the node agent of the control plane's own host, in `node.run_dir`.
const NODES_SOCKET: &str = "nodes.sock";

/// The embedded driver's socket there.
const DRIVER_SOCKET: &str = "local-driver.sock";

/// The embedded CSI driver as a part of `serve`. It needs no [[driver]] table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalDriver {
    /// The directory that holds the volumes.
    pub root: PathBuf,
    /// The driver's name.
    #[serde(default = "default_name")]
    pub name: DriverName,
    /// Its unix socket; none: `local-driver.sock` in `node.run_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

fn default_name() -> DriverName {
    DriverName::new("local.actor-volumes.dev").expect("it is a driver's name")
}

impl Config {
    /// The socket of the control plane.
    pub fn socket(&self) -> PathBuf {
        self.node.run_dir.join(SOCKET)
    }

    /// The socket of the node agent.
    pub fn agent_socket(&self) -> PathBuf {
        self.node.run_dir.join(AGENT_SOCKET)
    }

    /// The socket of the helper.
    pub fn helper_socket(&self) -> PathBuf {
        self.node.run_dir.join(HELPER_SOCKET)
    }

    /// Where the control plane listens for the node agent of its own host.
    pub fn nodes_socket(&self) -> PathBuf {
        self.node.run_dir.join(NODES_SOCKET)
    }

    /// Whether the node agent's control plane is the one of this host.
    pub fn is_with_control(&self) -> Result<bool> {
        let control = self.node.control.as_ref();
        match control.map(|c| c.endpoint()).transpose()? {
            None => Ok(false),
            Some(Endpoint::Tls(_)) => Ok(false),
            Some(Endpoint::Unix(socket)) => Ok(socket == self.nodes_socket()),
        }
    }

    /// The socket of the embedded driver, where it is a part of `serve`.
    pub fn local_driver_socket(&self) -> Option<PathBuf> {
        let local = self.local_driver.as_ref()?;
        let there = || self.node.run_dir.join(DRIVER_SOCKET);
        Some(local.socket.clone().unwrap_or_else(there))
    }

    /// The CSI drivers, with the embedded one.
    pub fn drivers(&self) -> Vec<Driver> {
        let mut all = self.driver.clone();
        if let (Some(local), Some(socket)) = (&self.local_driver, self.local_driver_socket())
            && all.iter().all(|driver| driver.name != local.name)
        {
            all.push(Driver {
                name: local.name.clone(),
                endpoint: Some(socket.display().to_string()),
                controller_endpoint: None,
                call_timeout_s: default_call_timeout_s(),
                max_calls: default_max_calls(),
                mount_root: None,
                tls: None,
            });
        }
        all
    }

    /// Where the control plane of `serve` serves its metrics.
    pub fn control_metrics(&self) -> Result<Option<SocketAddr>> {
        let Some(listen) = self.metrics.listen else {
            return Ok(self.metrics.control_listen);
        };
        if self.metrics.control_listen.is_some() {
            return Ok(self.metrics.control_listen);
        }
        let port = match listen.port() {
            // The kernel's choice.
            0 => Some(0),
            port => port.checked_add(1),
        };
        let port = port.ok_or_else(|| {
            Error::invalid(format!(
                "metrics.listen is {listen}, and there is no port after it for the control plane: set metrics.control_listen"
            ))
        })?;
        Ok(Some(SocketAddr::new(listen.ip(), port)))
    }

    pub(super) fn check_parts(&self) -> Result<()> {
        self.control_metrics()?;
        let Some(local) = &self.local_driver else {
            return Ok(());
        };
        let absolute = |key: &str, path: &Path| match path.is_absolute() {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "local_driver.{key} must be an absolute path, not {}",
                path.display()
            ))),
        };
        absolute("root", &local.root)?;
        if let Some(socket) = &local.socket {
            absolute("socket", socket)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text)
    }

    #[test]
    fn the_embedded_driver_needs_no_table_of_its_own_and_may_have_one() {
        let config = parse("[local_driver]\nroot = \"/srv/v\"\n").unwrap();
        let drivers = config.drivers();
        assert_eq!(drivers.len(), 1);
        assert_eq!(drivers[0].name.as_str(), "local.actor-volumes.dev");
        let socket = drivers[0].socket().unwrap();
        assert_eq!(socket, Some("/run/actor-volumes/local-driver.sock".into()));
        let with_a_table = "[local_driver]\nroot = \"/srv/v\"\nname = \"d.x\"\nsocket = \"/s.sock\"\n[[driver]]\nname = \"d.x\"\nendpoint = \"/s.sock\"\ncall_timeout_s = 5\n";
        let drivers = parse(with_a_table).unwrap().drivers();
        assert_eq!(drivers.len(), 1);
        assert_eq!(drivers[0].call_timeout_s, 5);
        let refused = parse("[local_driver]\nroot = \"v\"\n").unwrap_err();
        assert!(refused.full_message().contains("local_driver.root"));
        assert!(parse("[local_driver]\nname = \"d.x\"\n").is_err());
    }

    #[test]
    fn the_control_plane_serves_its_metrics_beside_the_node_agents() {
        let at = |text: &str| {
            let config = parse(&format!("[metrics]\n{text}"));
            config.and_then(|c| c.control_metrics())
        };
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(at("").unwrap(), None);
        assert_eq!(
            at("listen = \"127.0.0.1:9810\"").unwrap(),
            address("127.0.0.1:9811")
        );
        let both = "listen = \"127.0.0.1:9810\"\ncontrol_listen = \"127.0.0.1:1\"";
        assert_eq!(at(both).unwrap(), address("127.0.0.1:1"));
        let last = at("listen = \"127.0.0.1:65535\"").unwrap_err();
        assert!(last.full_message().contains("metrics.control_listen"));
    }

    #[test]
    fn a_node_is_with_its_control_plane_where_it_names_that_ones_socket() {
        let with = |endpoint: &str| {
            let text =
                format!("[node]\nrun_dir = \"/r\"\n[node.control]\nendpoint = \"{endpoint}\"\n");
            parse(&text).unwrap().is_with_control().unwrap()
        };
        assert!(with("unix:///r/nodes.sock"));
        assert!(!with("unix:///elsewhere/nodes.sock"));
        assert!(!parse("").unwrap().is_with_control().unwrap());
    }
}
