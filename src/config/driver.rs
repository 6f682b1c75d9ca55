// SPDX-License-Identifier: Apache-2.0
//! The CSI drivers of the configuration.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{BELOW_MOUNT_ROOT, MAX_CSI_PATH};
use crate::{
    error::{Error, Result},
    model::DriverName,
    transport::{Address, Endpoint, TlsEndpoint, TlsFiles},
};

/// One CSI driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// What its GetPluginInfo answers.
    pub name: DriverName,
    /// The unix socket of its Node service, and of its Controller service where
    /// that has no endpoint of its own: an absolute path, `unix://` before it is
    /// allowed.
    pub endpoint: Option<String>,
    /// The Controller service, where it is elsewhere: a unix socket, or
    /// `tcp://host:port` with `tls`.
    pub controller_endpoint: Option<String>,
    /// The deadline of one call, in seconds.
    #[serde(default = "default_call_timeout_s")]
    pub call_timeout_s: u64,
    /// Calls in flight at one endpoint; those that take longer than 2 s are not
    /// counted.
    #[serde(default = "default_max_calls")]
    pub max_calls: usize,
    /// Where the driver sees `node.mount_root`, if not at the same path.
    pub mount_root: Option<PathBuf>,
    /// Files of mutual TLS, for a `tcp://` endpoint.
    pub tls: Option<Tls>,
}

/// PEM files of mutual TLS; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authorities that the driver's certificate must come from.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The name that the driver's certificate must have; none: the host.
    pub server_name: Option<String>,
}

pub(super) fn default_call_timeout_s() -> u64 {
    60
}

pub(super) fn default_max_calls() -> usize {
    32
}

impl Driver {
    /// The socket of the Node service.
    pub fn socket(&self) -> Result<Option<PathBuf>> {
        let Some(text) = &self.endpoint else {
            return Ok(None);
        };
        match self.address("endpoint", text)? {
            Address::Unix(path) => Ok(Some(path)),
            Address::Tcp(..) => Err(Error::invalid(format!(
                "the endpoint of driver {} must be the absolute path of a unix socket, not {text:?}: only controller_endpoint may be elsewhere",
                self.name
            ))),
        }
    }

    /// The Controller service, where it has an endpoint of its own.
    pub fn controller(&self) -> Result<Option<Endpoint>> {
        let tls = |reason: &str| Error::invalid(format!("driver {}: {reason}", self.name));
        let Some(text) = &self.controller_endpoint else {
            return match &self.tls {
                Some(_) => Err(tls(
                    "tls is for a controller_endpoint of tcp://, which is missing",
                )),
                None => Ok(None),
            };
        };
        match (self.address("controller_endpoint", text)?, &self.tls) {
            (Address::Unix(path), None) => Ok(Some(Endpoint::Unix(path))),
            (Address::Unix(_), Some(_)) => Err(tls("a unix socket has no tls: leave it out")),
            (Address::Tcp(..), None) => Err(tls(
                "plain TCP is refused, since whoever reaches it could order any volume deleted: add a [driver.tls] table with ca, cert and key",
            )),
            (Address::Tcp(host, port), Some(files)) => {
                let all = [&files.ca, &files.cert, &files.key];
                if let Some(file) = all.into_iter().find(|f| !f.is_absolute()) {
                    return Err(tls(&format!(
                        "tls: {} must be an absolute path",
                        file.display()
                    )));
                }
                Ok(Some(Endpoint::Tls(TlsEndpoint {
                    host,
                    port,
                    tls: TlsFiles {
                        ca: files.ca.clone(),
                        cert: files.cert.clone(),
                        key: files.key.clone(),
                        server_name: files.server_name.clone(),
                    },
                })))
            }
        }
    }

    fn address(&self, key: &str, text: &str) -> Result<Address> {
        text.parse::<Address>()
            .map_err(|e| e.context(format_args!("{key} of driver {}", self.name)))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.socket()?.is_none() & self.controller()?.is_none() {
            return Err(Error::invalid(format!(
                "driver {} has no endpoint: set endpoint, controller_endpoint or both",
                self.name
            )));
        }
        if self.call_timeout_s == 0 || self.max_calls == 0 {
            return Err(Error::invalid(format!(
                "call_timeout_s and max_calls of driver {} must be at least 1",
                self.name
            )));
        }
        let Some(root) = &self.mount_root else {
            return Ok(());
        };
        let longest = root.as_os_str().len() + BELOW_MOUNT_ROOT;
        if !root.is_absolute() || longest > MAX_CSI_PATH {
            return Err(Error::invalid(format!(
                "mount_root of driver {} must be an absolute path, short enough that the {longest} bytes of its longest path are at most {MAX_CSI_PATH}",
                self.name
            )));
        }
        Ok(())
    }

    /// The deadline of one call.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_s)
    }
}
