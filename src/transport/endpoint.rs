// SPDX-License-Identifier: Apache-2.0
//! Where a gRPC server is: a unix socket, or TCP with mutual TLS. Plain TCP is
//! not among them: a controller obeys whoever reaches it.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::{Error, Result};

/// Where a gRPC server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket, an absolute path.
    Unix(PathBuf),
    /// TCP with mutual TLS.
    Tls(TlsEndpoint),
}

/// A server behind TCP, and what both sides prove themselves with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsEndpoint {
    /// A host name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The files.
    pub tls: TlsFiles,
}

/// PEM files. They are read anew for each connection, and a connection whose
/// files have changed is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that the server's certificate must come from.
    pub ca: PathBuf,
    /// Our certificate, with the chain to what the server trusts.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The name that the server's certificate must have; none: the host.
    pub server_name: Option<String>,
}

/// An address as it is written: `unix:///path` or an absolute path, or
/// `tcp://host:port` (also spelt `https://`), which needs files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let remote = ["tcp://", "https://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        if let Some(rest) = remote {
            let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
            let port = port.parse().ok().filter(|port| *port != 0);
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
            return match port {
                Some(port) if !host.is_empty() && host.chars().all(plain) => {
                    Ok(Self::Tcp(host.to_owned(), port))
                }
                _ => Err(Error::invalid(format!("{text:?} must be tcp://host:port"))),
            };
        }
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        if path.is_absolute() {
            Ok(Self::Unix(path))
        } else {
            Err(Error::invalid(format!(
                "{text:?} must be the absolute path of a unix socket, or tcp://host:port with a table of TLS files"
            )))
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tls(tls) => write!(f, "tcp://{}:{}", tls.host, tls.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_absolute_socket_or_a_host_with_a_port() {
        let unix = Address::Unix("/run/csi.sock".into());
        assert_eq!("unix:///run/csi.sock".parse::<Address>().unwrap(), unix);
        assert_eq!("/run/csi.sock".parse::<Address>().unwrap(), unix);
        let tcp = Address::Tcp("csi.storage".into(), 9000);
        assert_eq!("tcp://csi.storage:9000".parse::<Address>().unwrap(), tcp);
        let six = Address::Tcp("[::1]".into(), 9000);
        assert_eq!("tcp://[::1]:9000".parse::<Address>().unwrap(), six);
        for bad in [
            "csi.sock",
            "unix://csi.sock",
            "tcp://host",
            "tcp://:1",
            "tcp://h:0",
            "tcp://h/x:1",
            "http://h:1",
            "",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
