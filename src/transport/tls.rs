// SPDX-License-Identifier: Apache-2.0
//! gRPC over TCP with mutual TLS.

use std::{io, path::Path, time::Duration};

use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Http, Identity};

use super::{TlsEndpoint, TlsFiles, dial};
use crate::error::{Error, Result};

/// What the files hold, as a hash: a change shows as another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

pub(super) struct Pem {
    pub(super) ca: Vec<u8>,
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Pem {
    pub(super) async fn read(files: &TlsFiles) -> Result<Self> {
        Ok(Self {
            ca: read(&files.ca).await?,
            cert: read(&files.cert).await?,
            key: read(&files.key).await?,
        })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [&self.ca, &self.cert, &self.key] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>> {
    tokio::fs::read(path).await.map_err(|e| {
        Error::precondition(format!("cannot read the TLS file {}", path.display())).with_source(e)
    })
}

/// The fingerprint of the files as they are now.
pub async fn fingerprint(files: &TlsFiles) -> Result<Fingerprint> {
    Ok(Pem::read(files).await?.fingerprint())
}

/// Connects for one connection alone, like [`super::connect_once`].
pub(super) async fn connect_once(
    endpoint: &TlsEndpoint,
    within: Duration,
    keep_alive: Option<Duration>,
) -> Result<(Channel, Fingerprint)> {
    let pem = Pem::read(&endpoint.tls).await?;
    let fingerprint = pem.fingerprint();
    let shown = format!("tcp://{}:{}", endpoint.host, endpoint.port);
    let name = endpoint.tls.server_name.clone();
    let name = name.unwrap_or_else(|| endpoint.host.trim_matches(['[', ']']).to_owned());
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem.ca))
        .identity(Identity::from_pem(pem.cert, pem.key))
        .domain_name(name);
    let http = Http::from_shared(format!("https://{}:{}", endpoint.host, endpoint.port))
        .and_then(|http| http.tls_config(tls))
        .map_err(|e| {
            Error::precondition(format!(
                "cannot use the TLS files for {shown}: are they PEM, and does the key belong to the certificate?"
            ))
            .with_source(e)
        })?;
    let http = super::kept_alive(http, keep_alive);
    let address = (
        endpoint.host.trim_matches(['[', ']']).to_owned(),
        endpoint.port,
    );
    let open = move || {
        let address = address.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        }
    };
    let channel = dial(http, within, true, open).await.map_err(|e| {
        Error::unavailable(format!(
            "cannot connect to {shown} with mutual TLS: is its server running, and does each side trust the other's certificate?"
        ))
        .with_source(e)
    })?;
    Ok((channel, fingerprint))
}
