// SPDX-License-Identifier: Apache-2.0
//! Where a control plane listens for nodes, and where a node finds its own.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::Tls;
use crate::{
    error::{Error, Result},
    transport::{Address, Endpoint, NamePattern, TlsEndpoint, TlsFiles},
};

/// The control plane, for nodes elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Where nodes connect, such as `0.0.0.0:7443`; one or several; none: there
    /// are no other nodes.
    #[serde(deserialize_with = "one_or_several")]
    pub listen: Vec<SocketAddr>,
    /// Files of mutual TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
}

/// PEM files of a server; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// The authorities that the certificates of nodes must come from.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Names of nodes that may connect, `*` standing for any letters; none: every
    /// certificate of the authorities.
    #[serde(default)]
    pub allowed_names: Vec<String>,
}

/// Where the control plane of a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeControl {
    /// `https://host:port`, or `unix://<socket>` of a control plane on this host.
    pub endpoint: String,
    /// Files of mutual TLS; the certificate has the node's name as a DNS name.
    pub tls: Option<Tls>,
}

fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listen {
        One(SocketAddr),
        Several(Vec<SocketAddr>),
    }
    Ok(match Listen::deserialize(from)? {
        Listen::One(one) => vec![one],
        Listen::Several(several) => several,
    })
}

impl Control {
    pub(super) fn check(&self) -> Result<()> {
        match &self.tls {
            None if self.listen.is_empty() => Ok(()),
            None => Err(Error::invalid(
                "control.listen needs a [control.tls] table with ca, cert and key: nodes are told secrets of drivers, so plain TCP is refused",
            )),
            Some(tls) => {
                self.allowed_names()?;
                absolute("control.tls", [&tls.ca, &tls.cert, &tls.key])
            }
        }
    }

    /// The nodes that may connect; none: every one with a certificate.
    pub fn allowed_names(&self) -> Result<Vec<NamePattern>> {
        let names = self.tls.iter().flat_map(|tls| &tls.allowed_names);
        let read = |name: &String| name.parse();
        names
            .map(read)
            .collect::<Result<_>>()
            .map_err(|e| e.context("control.tls.allowed_names"))
    }

    /// The files, where it listens at all.
    pub fn files(&self) -> Option<TlsFiles> {
        let tls = self.tls.as_ref().filter(|_| !self.listen.is_empty())?;
        Some(TlsFiles {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            server_name: None,
        })
    }
}

impl NodeControl {
    /// The endpoint with its files.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let key = "node.control.endpoint";
        let (host, port) = match self.endpoint.parse().map_err(|e: Error| e.context(key))? {
            Address::Tcp(host, port) => (host, port),
            Address::Unix(socket) if self.tls.is_none() => return Ok(Endpoint::Unix(socket)),
            Address::Unix(_) => {
                return Err(Error::invalid(
                    "node.control: a unix socket has no tls: leave it out",
                ));
            }
        };
        let tls = self.tls.as_ref().ok_or_else(|| {
            Error::invalid(
                "node.control needs a [node.control.tls] table with ca, cert and key: plain TCP is refused",
            )
        })?;
        absolute("node.control.tls", [&tls.ca, &tls.cert, &tls.key])?;
        Ok(Endpoint::Tls(TlsEndpoint {
            host,
            port,
            tls: TlsFiles {
                ca: tls.ca.clone(),
                cert: tls.cert.clone(),
                key: tls.key.clone(),
                server_name: tls.server_name.clone(),
            },
        }))
    }
}

fn absolute(table: &str, files: [&PathBuf; 3]) -> Result<()> {
    match files.into_iter().find(|f| !f.is_absolute()) {
        None => Ok(()),
        Some(file) => Err(Error::invalid(format!(
            "{table}: {} must be an absolute path",
            file.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const FILES: &str = "ca = \"/c/ca\"\ncert = \"/c/crt\"\nkey = \"/c/key\"\n";

    fn refused(text: &str) -> String {
        Config::parse(text).unwrap_err().full_message()
    }

    #[test]
    fn a_control_plane_listens_at_one_address_or_several_and_only_with_tls() {
        let one = "[control]\nlisten = \"0.0.0.0:7443\"\n";
        assert!(refused(one).contains("plain TCP is refused"));
        let config = Config::parse(&format!("{one}[control.tls]\n{FILES}")).unwrap();
        assert_eq!(config.control.listen.len(), 1);
        assert!(config.control.files().is_some());
        let several = "[control]\nlisten = [\"0.0.0.0:1\", \"[::]:1\"]\n";
        let config = Config::parse(&format!("{several}[control.tls]\n{FILES}")).unwrap();
        assert_eq!(config.control.listen.len(), 2);
    }

    #[test]
    fn the_nodes_that_may_connect_are_named_or_all() {
        let tls = format!("[control]\nlisten = \"0.0.0.0:1\"\n[control.tls]\n{FILES}");
        let all = Config::parse(&tls).unwrap().control;
        assert!(all.allowed_names().unwrap().is_empty());
        let some = Config::parse(&format!("{tls}allowed_names = [\"node-*\"]\n")).unwrap();
        let [pattern] = &some.control.allowed_names().unwrap()[..] else {
            panic!("one pattern");
        };
        assert!(pattern.matches("node-7") && !pattern.matches("x"));
        let bad = refused(&format!("{tls}allowed_names = [\"a b\"]\n"));
        assert!(bad.contains("control.tls.allowed_names"), "{bad}");
    }

    #[test]
    fn a_node_finds_its_control_plane_over_tls_or_by_a_socket_of_its_host() {
        let node = "[node.control]\nendpoint = \"https://control:7443\"\n";
        assert!(refused(node).contains("plain TCP is refused"));
        let config = Config::parse(&format!("{node}[node.control.tls]\n{FILES}")).unwrap();
        let endpoint = config.node.control.unwrap().endpoint().unwrap();
        assert_eq!(endpoint.to_string(), "tcp://control:7443");
        let socket = node.replace("https://control:7443", "unix:///x.sock");
        let config = Config::parse(&socket).unwrap();
        let endpoint = config.node.control.unwrap().endpoint().unwrap();
        assert_eq!(endpoint.to_string(), "unix:///x.sock");
        let both = format!("{socket}[node.control.tls]\n{FILES}");
        assert!(refused(&both).contains("leave it out"));
        let relative = format!("{node}[node.control.tls]\n{}", FILES.replace("/c/ca", "ca"));
        assert!(refused(&relative).contains("absolute"));
    }
}
